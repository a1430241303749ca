"""Readers of a checkpoint's files, none of which is trusted: what its model is and can do.

Reads, never writes, and runs nothing of the model's outside a process that bounds itself.
"""
