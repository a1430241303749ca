"""Messages between our own processes: lease, control API, gateway setup. Pure data, no I/O."""
