"""A systemd-native supervisor daemon for vLLM with an Ollama-compatible API."""

from __future__ import annotations

__version__ = "0.1.0"
