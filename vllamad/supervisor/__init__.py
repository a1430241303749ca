"""The control plane: the process that starts, schedules and stops every worker.

It parses nothing that a client sends; that is `gateway`, which it never imports.
"""
