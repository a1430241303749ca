"""Processes: groups, cgroups and shims, and how each ends. Models are unknown here."""
