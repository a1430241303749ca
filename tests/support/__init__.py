"""What tests of several folders share: daemons, checkpoints, families, requests."""
