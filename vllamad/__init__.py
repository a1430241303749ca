"""A systemd-native supervisor daemon for vLLM with an Ollama-compatible API."""
