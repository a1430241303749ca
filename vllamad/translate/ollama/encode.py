"""Writes the pieces of an answer as Ollama's JSON objects, with keys in Ollama's order.

Works on JSON-escaped text, so that text which the engine escaped is copied.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from vllamad.translate.engine.chunks import Logprob
from vllamad.translate.engine.tool_calls import ToolCall


class AnswerPiece(NamedTuple):
    """The content of one line. Texts are JSON-escaped, without quotes."""

    content: bytes = b""
    thinking: bytes = b""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


class Truncated(NamedTuple):
    """The part of a conversation that was dropped because it exceeds the context."""

    messages: int = 0
    tokens: int = 0  # of the `context` in a request


NOTHING_TRUNCATED = Truncated()


class LastLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of the last line only: durations in nanoseconds, zero left out.

    Ollama's has no `truncated_...`; its clients ignore keys that they do not know.
    """

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    truncated_messages: int = 0
    truncated_tokens: int = 0


class Spelling(NamedTuple):
    """The form of one route's lines; `around_*` are the bytes before and after a bare text."""

    around_content: tuple[bytes, bytes]
    around_thinking: tuple[bytes, bytes]
    is_chat: bool


CHAT = Spelling(
    (b'","message":{"role":"assistant","content":"', b'"},"done":false}\n'),
    (b'","message":{"role":"assistant","content":"","thinking":"', b'"},"done":false}\n'),
    True,
)
GENERATE = Spelling(
    (b'","response":"', b'","done":false}\n'),
    (b'","response":"","thinking":"', b'","done":false}\n'),
    False,
)


def opening(model: str) -> bytes:
    """Return the first bytes of each line, up to the time."""
    return b'{"model":%b,"created_at":"' % msgspec.json.encode(model)


def line(spelling: Spelling, start: bytes, piece: AnswerPiece) -> bytes:
    """Write one line of a stream; `start` is the opening with the time."""
    return start + spelling.around_content[0] + _rest(spelling, piece, b"", b"") + b"\n"


def last(
    spelling: Spelling,
    start: bytes,
    piece: AnswerPiece,
    reason: str,
    ending: LastLine,
    context: bytes = b"",
) -> bytes:
    """Write the object that ends an answer, without a newline; it may carry a whole answer.

    `context` is the conversation as token ids, separated by commas.
    """
    done_reason = b',"done_reason":%b' % msgspec.json.encode(reason) if reason else b""
    if context:
        done_reason += b',"context":[%b]' % context
    metrics = msgspec.json.encode(ending)[1:-1]
    metrics = b"," + metrics if metrics else b""
    return start + spelling.around_content[0] + _rest(spelling, piece, done_reason, metrics, True)


def settled(spelling: Spelling, start: bytes, reason: str) -> bytes:
    """Write the response to a request that only loads or unloads: one object, streamed or not."""
    return last(spelling, start, AnswerPiece(), reason, LastLine())


def rendered(spelling: Spelling, start: bytes, prompt: str, images: int) -> bytes:
    """Write the response to `_debug_render_only`, with the prompt for the engine: one object."""
    empty = b',"message":{"role":"","content":""}' if spelling.is_chat else b',"response":""'
    info: dict[str, object] = {"rendered_template": prompt}
    if images:
        info["image_count"] = images
    debug_info = msgspec.json.encode(info)
    return start + b'"' + empty + b',"done":false,"_debug_info":' + debug_info + b"}"


def _rest(
    spelling: Spelling, piece: AnswerPiece, done_reason: bytes, metrics: bytes, done: bool = False
) -> bytes:
    thinking = b',"thinking":"%b"' % piece.thinking if piece.thinking else b""
    calls = b',"tool_calls":%b' % _tool_calls(piece.tool_calls) if piece.tool_calls else b""
    logprobs = b',"logprobs":' + msgspec.json.encode(piece.logprobs) if piece.logprobs else b""
    finished = b',"done":true' if done else b',"done":false'
    if spelling.is_chat:
        order = (thinking, calls, b"}", finished, done_reason, logprobs, metrics)
    else:
        order = (thinking, finished, done_reason, metrics, calls, logprobs)
    return piece.content + b'"' + b"".join(order) + b"}"


def _tool_calls(calls: tuple[ToolCall, ...]) -> bytes:
    return msgspec.json.encode(
        [
            {
                "id": call.id,
                "function": {"index": index, "name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(calls)
        ]
    )
