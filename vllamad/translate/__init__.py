"""Translation between the APIs of clients and the API of vLLM. No I/O, no clock, no models."""
