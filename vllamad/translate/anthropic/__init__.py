"""Anthropic's Messages API: the fields and blocks that reach the engine."""
