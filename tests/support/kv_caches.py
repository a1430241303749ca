"""Caches as tests want them: no model's, but one that takes so many bytes a token."""

from __future__ import annotations

from vllamad.core.kv_cache import Layers


def flat(per_token: int) -> tuple[Layers, ...]:
    """A layer that keeps `per_token` bytes, an even number, of every token."""
    return (Layers(count=1, width=per_token // 2),) if per_token else ()
