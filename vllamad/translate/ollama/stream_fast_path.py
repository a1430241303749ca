"""Do two events differ in their text alone? Then the second need not be parsed.

The bytes of a plain chunk before and after its text are the same for a whole stream. What stands
between them is already JSON-escaped and is copied into our line as it is. If token ids were asked
for, they differ too, and are cut out as they are.
"""

from __future__ import annotations

import re

import msgspec

from vllamad.translate.engine.chunks import Chunk, ids_in, read_chunk

DIGITS = b"0123456789,"  # what a list of token ids consists of

_KEYS = (b'"content":"', b'"text":"', b'"reasoning":"', b'"reasoning_content":"')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IDS = re.compile(rb'"token_ids":\[([0-9,]++)\]')


class Template(msgspec.Struct, frozen=True):
    """The bytes around the text of a plain chunk, and which text that is.

    `middle` is what stands between the text and the token ids, b"" where there are no ids.
    """

    prefix: bytes
    middle: bytes
    suffix: bytes
    is_thinking: bool


# No event begins like this, so nothing matches it.
NONE = Template(b"\0", b"", b"\0", False)


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
            prefix, (middle, suffix) = payload[:begin], _around_ids(payload[found.end() :])
            told = read_chunk(prefix + b"x" + middle + (b"7,8" if middle else b"") + suffix)
            ids = ids_in(told.choices[0].token_ids) if told.choices else b""
            if _plain_text(told) == (plain[0], "x") and ids == (b"7,8" if middle else b""):
                return Template(prefix, middle, suffix, plain[0])
    return None


def _around_ids(rest: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the token ids; (b"", all of it) where there are none."""
    found = _IDS.search(rest)
    return (rest[: found.start(1)], rest[found.end(1) :]) if found else (b"", rest)


def _plain_text(chunk: Chunk) -> tuple[bool, str] | None:
    """Give the one text of a chunk that says nothing else, and whether it is thinking."""
    if len(chunk.choices) != 1 or chunk.usage or chunk.metrics or chunk.error is not None:
        return None
    choice = chunk.choices[0]
    if choice.finish_reason or choice.logprobs or (choice.delta and choice.delta.tool_calls):
        return None
    if ids_in(chunk.prompt_token_ids) or ids_in(choice.prompt_token_ids):
        return None  # only the first event has them
    if bool(choice.content) == bool(choice.thinking):
        return None
    return bool(choice.thinking), choice.content or choice.thinking
