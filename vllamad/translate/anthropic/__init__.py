"""Anthropic's messages: the fields and blocks that reach the engine."""
