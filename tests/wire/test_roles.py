"""A conversation made acceptable to a chat template."""

from __future__ import annotations

from vllamad.wire.roles import ACCEPTS_ALL, conform


def test_a_template_that_accepts_everything_is_given_the_conversation_as_it_is() -> None:
    said: list[dict[str, object]] = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    assert conform(said, ACCEPTS_ALL) == said
