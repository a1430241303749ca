"""Linux and systemd for the rest of the tree: processes, cgroups, sockets, logs, GPUs.

Nothing here knows models, engines or requests.
"""
