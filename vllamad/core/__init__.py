"""What we decide. No I/O, no clock, no logging."""
