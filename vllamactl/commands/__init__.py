"""The commands. None of them knows the command line's syntax."""
