"""The interactive chat at a terminal."""
