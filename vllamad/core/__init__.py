"""Decisions: scheduling, eviction, memory, restarts, names. No I/O, no clock, no logging."""
