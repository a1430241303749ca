"""What is said on sockets. No I/O."""
