"""The models that can be pulled by a short name, and the repository each comes from.

Reads files of ours and of the operator, asks no hub. `models/installed.py` has what is installed.
"""
