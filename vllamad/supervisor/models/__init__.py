"""Changes of the installed models: pulls, create, copy, delete, verify, prune."""
