"""Errors as vLLM sends them inside a stream."""

from __future__ import annotations

RATE_LIMITED = '{"error":{"message":"rate limit exceeded","type":"x","param":null,"code":%d}}'
