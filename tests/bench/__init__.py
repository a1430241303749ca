"""What a token costs on its way through the gateway. `make bench`."""
