"""What is installed, and what its files say about it."""
