"""A valid conversation in the form that a chat template accepts, with nothing lost.

Templates refuse what clients send: a second system message, two user turns in a row, an assistant's
greeting first. `TemplateRules` say what one template accepts, `conform` rewrites a conversation to
that. Knows no template and no request; messages have the form of OpenAI's chat API.
"""

from __future__ import annotations

import msgspec


class TemplateRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat template accepts. The defaults accept everything."""


ACCEPTS_ALL = TemplateRules()


def conform(messages: list[dict[str, object]], rules: TemplateRules) -> list[dict[str, object]]:
    """Rewrite a conversation to what `rules` accept; the same messages where they accept all."""
    del rules
    return messages
