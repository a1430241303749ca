"""Listening: Hypercorn and Quart as the gateway needs them. Routes are unknown here."""
