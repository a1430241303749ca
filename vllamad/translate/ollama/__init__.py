"""Ollama's API: its requests, their translation for the engine, and its replies."""
