"""Do two events differ in their text alone? Then the second need not be parsed.

The bytes of a plain chunk before and after its text are the same for a whole stream. What stands
between them is already JSON-escaped and is copied into our line as it is.
"""

from __future__ import annotations

import re

import msgspec

from vllamad.wire.chunks import Chunk, read_chunk

_KEYS = (b'"content":"', b'"text":"', b'"reasoning":"', b'"reasoning_content":"')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class Template(msgspec.Struct, frozen=True):
    """The bytes around the text of a plain chunk, and which text that is."""

    prefix: bytes
    suffix: bytes
    is_thinking: bool


# No event begins like this, so nothing matches it.
NONE = Template(b"\0", b"\0", False)


def learn(payload: bytes, chunk: Chunk) -> Template | None:
    """Find the template of a chunk that says nothing but one text, else None.

    A template is believed only after another text put into it was read back as exactly that.
    """
    plain = _plain_text(chunk)
    if plain is None:
        return None
    for key in _KEYS:
        begin = payload.find(key) + len(key)
        found = _REST_OF_STRING.match(payload, begin) if begin >= len(key) else None
        if found is not None:
            prefix, suffix = payload[:begin], payload[found.end() :]
            if _plain_text(read_chunk(prefix + b"x" + suffix)) == (plain[0], "x"):
                return Template(prefix, suffix, plain[0])
    return None


def _plain_text(chunk: Chunk) -> tuple[bool, str] | None:
    """Give the one text of a chunk that says nothing else, and whether it is thinking."""
    if len(chunk.choices) != 1 or chunk.usage or chunk.metrics or chunk.error is not None:
        return None
    choice = chunk.choices[0]
    if choice.finish_reason or choice.logprobs or (choice.delta and choice.delta.tool_calls):
        return None
    if bool(choice.content) == bool(choice.thinking):
        return None
    return bool(choice.thinking), choice.content or choice.thinking
