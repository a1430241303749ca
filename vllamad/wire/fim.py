"""How is a model asked for what stands between two texts? With tokens of its own around them."""

from __future__ import annotations

import msgspec


class FimTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens around what comes before, what comes after, and what is wanted.

    `ends` are the ids of tokens that end the piece besides the model's own end.
    """

    before: str
    after: str
    middle: str
    ends: tuple[int, ...] = ()


def fill_in(tokens: FimTokens, before: str, after: str) -> str:
    """The prompt that asks for what stands between `before` and `after`."""
    return f"{tokens.before}{before}{tokens.after}{after}{tokens.middle}"
