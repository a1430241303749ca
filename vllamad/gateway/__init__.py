"""The data plane: parses what strangers send, relays tokens."""
