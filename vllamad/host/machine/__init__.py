"""The machine: memory, cores, GPUs, AMX, addresses, file limits, as seen now."""
