"""Copies the text of an event that differs from an earlier one in its text alone.

The bytes of a plain chunk before and after its text are the same for a whole stream. The text
between them is already JSON-escaped, so it is copied into our line without parsing. Token ids, if
requested, differ too, and are cut out the same way.
"""

from __future__ import annotations

import re

import msgspec

from vllamad.translate.engine.chunks import Chunk, ids_in, read_chunk

DIGITS = b"0123456789,"  # the bytes of a list of token ids

_KEYS = (b'"content":"', b'"text":"', b'"reasoning":"', b'"reasoning_content":"')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IDS = re.compile(rb'"token_ids":\[([0-9,]++)\]')


class Template(msgspec.Struct, frozen=True):
    """The bytes around the text of a plain chunk, and the kind of that text.

    `middle` are the bytes between the text and the token ids, b"" without ids.
    """

    prefix: bytes
    middle: bytes
    suffix: bytes
    is_thinking: bool


# No event begins with this byte, so that no event matches.
NONE = Template(b"\0", b"", b"\0", False)


def learn(payload: bytes, chunk: Chunk) -> Template | None:
    """Return the template of a chunk with one text and nothing else; None for another chunk.

    A template counts only if another text in its place is read back as exactly that text.
    """
    plain = _plain_text(chunk)
    if plain is None:
        return None
    for key in _KEYS:
        begin = payload.find(key) + len(key)
        text = _REST_OF_STRING.match(payload, begin) if begin >= len(key) else None
        if text is not None:
            prefix, (middle, suffix) = payload[:begin], _around_ids(payload[text.end() :])
            trial = read_chunk(prefix + b"x" + middle + (b"7,8" if middle else b"") + suffix)
            ids = ids_in(trial.choices[0].token_ids) if trial.choices else b""
            if _plain_text(trial) == (plain[0], "x") and ids == (b"7,8" if middle else b""):
                return Template(prefix, middle, suffix, plain[0])
    return None


def _around_ids(rest: bytes) -> tuple[bytes, bytes]:
    """Split at the token ids into the bytes before and after; (b"", rest) without ids."""
    ids = _IDS.search(rest)
    return (rest[: ids.start(1)], rest[ids.end(1) :]) if ids else (b"", rest)


def _plain_text(chunk: Chunk) -> tuple[bool, str] | None:
    """Return the only text of a chunk, with true for thinking; None for another chunk."""
    if len(chunk.choices) != 1 or chunk.usage or chunk.metrics or chunk.error is not None:
        return None
    choice = chunk.choices[0]
    if choice.finish_reason or choice.logprobs or (choice.delta and choice.delta.tool_calls):
        return None
    if ids_in(chunk.prompt_token_ids) or ids_in(choice.prompt_token_ids):
        return None  # only in the first event
    if bool(choice.content) == bool(choice.thinking):
        return None
    return bool(choice.thinking), choice.content or choice.thinking
