"""What a token, and a request, cost on their way through the daemon. `make bench`."""
