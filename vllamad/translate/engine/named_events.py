"""An engine's answer in events that name their kind: OpenAI's Responses, Anthropic's messages.

Deltas are passed on as they are. The answer as a whole, which some events hold, is rebuilt: it gets
the keys that the API requires, and keeps no others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from vllamad.errors import EngineRefused, VllamadError
from vllamad.translate.error_bodies import anthropic_error, engine_refusal
from vllamad.translate.go.json_decoder import is_object
from vllamad.translate.openai.passthrough import OpenAIPassthrough

_LAST = frozenset({"message_stop", "response.completed", "response.failed", "response.incomplete"})
# The events that hold the answer as far as it is known: its model and its usage.
_HOLDING = _LAST | {"message_start", "message_delta", "response.created", "response.in_progress"}
_HOLDERS = ("message", "response")


_MESSAGE = frozenset({
    "container", "content", "id", "model", "role", "stop_reason", "stop_sequence", "type", "usage",
})  # fmt: skip
_RESPONSE = frozenset({
    "background", "completed_at", "conversation", "created_at", "error", "id", "incomplete_details",
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "object", "output",
    "parallel_tool_calls", "previous_response_id", "prompt", "reasoning", "service_tier", "status",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage",
    "user",
})  # fmt: skip
_DETAILS = {
    "input_tokens_details": frozenset({"cached_tokens", "cache_write_tokens"}),
    "output_tokens_details": frozenset({"reasoning_tokens"}),
}
_NULL = msgspec.Raw(b"null")

Fields = dict[str, msgspec.Raw]


class _Kind(msgspec.Struct):
    type: str


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: _Usage | None = None


class _Holding(_Counted):
    response: _Counted | None = None


class _Numbered(msgspec.Struct):
    sequence_number: int = -1


class NamedEventPassthrough(OpenAIPassthrough, ABC):
    """One answer of either API; the name of an event is always also in its data."""

    _now_ns = 0

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """Pass on the engine's bytes. `now_ns` is nanoseconds since the epoch."""
        self._now_ns = now_ns
        return super().feed(data, now_ns)

    def finish(self, now_ns: int) -> bytes:
        """The end of the engine's answer, at `now_ns` nanoseconds since the epoch."""
        self._now_ns = now_ns
        return super().finish(now_ns)

    def _event(self, payload: bytes) -> bytes:
        if self.failed is not None or self.complete:
            return b""
        try:
            kind = msgspec.json.decode(payload, type=_Kind).type
        except msgspec.DecodeError:
            return self.fail(engine_refusal(500, payload))
        if kind == "error":
            return self.fail(engine_refusal(500, payload))
        self._seen(payload)
        if kind in _HOLDING:
            self._count(payload)
            payload = self._renamed(payload)
        elif kind == "content_block_start":
            payload = _signed(payload)
        self.complete = kind in _LAST
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)

    def _count(self, payload: bytes) -> None:
        try:
            holding = msgspec.json.decode(payload, type=_Holding)
        except msgspec.DecodeError:
            return  # not ours to judge
        usage = holding.usage or (holding.response and holding.response.usage)
        if usage:
            cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
            self.prompt_tokens = usage.input_tokens + cached
            self.completion_tokens = usage.output_tokens

    def _renamed(self, payload: bytes) -> bytes:
        # Not by the first find: what the client sent comes back before the name.
        try:
            fields = msgspec.json.decode(payload, type=Fields)
        except msgspec.DecodeError:
            return payload
        for holder in _HOLDERS:
            if holder in fields:
                fields[holder] = msgspec.Raw(self._renamed(bytes(fields[holder])))
        if "model" in fields:
            fields["model"] = msgspec.Raw(msgspec.json.encode(self._asked_name))
            fields = self._rebuilt(fields)
        return msgspec.json.encode(fields)

    @abstractmethod
    def _rebuilt(self, fields: Fields) -> Fields:
        """The answer as a whole with the keys of its API."""
        ...

    def _seen(self, payload: bytes) -> None:
        """An event is about to be passed on."""


class MessagesPassthrough(NamedEventPassthrough):
    """An answer of `/v1/messages`."""

    def _rebuilt(self, fields: Fields) -> Fields:
        kept = {"stop_reason": _NULL, "stop_sequence": _NULL} | _only(fields, _MESSAGE)
        if b'"chatcmpl-' in bytes(fields.get("id", _NULL)):
            kept["id"] = msgspec.Raw(bytes(fields["id"]).replace(b"chatcmpl-", b"msg_"))
        return kept

    def _error(self, error: VllamadError) -> bytes:
        return b"event: error\ndata: %b\n\n" % anthropic_error(_status(error), error.message)


class ResponsesPassthrough(NamedEventPassthrough):
    """An answer of `/v1/responses`."""

    _latest = b"{}"

    def _seen(self, payload: bytes) -> None:
        self._latest = payload

    def _rebuilt(self, fields: Fields) -> Fields:
        kept = {"error": _NULL, "completed_at": _NULL} | _only(fields, _RESPONSE)
        if bytes(kept.get("metadata", _NULL)) == b"null":
            kept["metadata"] = msgspec.Raw(b"{}")
        if bytes(kept.get("status", _NULL)) == b'"completed"':
            kept["completed_at"] = msgspec.Raw(b"%d" % (self._now_ns // 1_000_000_000))
        if "usage" in kept:
            kept["usage"] = _counts(kept["usage"])
        return kept

    def _error(self, error: VllamadError) -> bytes:
        """As OpenAI documents it, and with the `error` by which its clients know a failure."""
        number = msgspec.json.decode(self._latest, type=_Numbered).sequence_number
        fault = {"message": error.message, "type": "api_error", "param": None, "code": None}
        event = {"type": "error", "sequence_number": number + 1, "error": fault}
        event |= {"code": "api_error", "message": error.message, "param": None}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)


def _signed(payload: bytes) -> bytes:
    """The start of a content block; that of a thought has a `signature`, empty as vLLM's are."""
    start = msgspec.json.decode(payload, type=dict[str, object])
    block = start.get("content_block")
    if not is_object(block) or block.get("type") != "thinking":
        return payload
    return msgspec.json.encode(start | {"content_block": {"signature": ""} | block})


def _only(fields: Fields, allowed: frozenset[str]) -> Fields:
    return {key: value for key, value in fields.items() if key in allowed}


def _counts(usage: msgspec.Raw) -> msgspec.Raw:
    """A usage without the details that only vLLM counts."""
    fields = msgspec.json.decode(usage, type=Fields | None)
    if fields is None:
        return usage
    for name, allowed in _DETAILS.items():
        if details := msgspec.json.decode(fields.get(name, _NULL), type=Fields | None):
            fields[name] = msgspec.Raw(msgspec.json.encode(_only(details, allowed)))
    return msgspec.Raw(msgspec.json.encode(fields))


def _status(error: VllamadError) -> int:
    return error.status if isinstance(error, EngineRefused) else 500
