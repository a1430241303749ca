"""The control plane: one process that owns every worker."""
