"""The passthrough of responses in named events: OpenAI's Responses, Anthropic's messages.

Deltas are passed on unchanged. The whole response, which some events contain, is rebuilt: it gets
the keys that the API requires, and no others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from vllamad.errors import EngineRefused, VllamadError
from vllamad.translate.error_bodies import anthropic_error, engine_refusal
from vllamad.translate.go.json_decoder import is_object
from vllamad.translate.openai.passthrough import OpenAIPassthrough

_LAST = frozenset({"message_stop", "response.completed", "response.failed", "response.incomplete"})
# The events that contain the response so far, with its model and its usage.
_WITH_RESPONSE = _LAST | {
    "message_start",
    "message_delta",
    "response.created",
    "response.in_progress",
}
_RESPONSE_KEYS = ("message", "response")


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


class _ResponseEvent(_Counted):
    response: _Counted | None = None


class _Numbered(msgspec.Struct):
    sequence_number: int = -1


class NamedEventPassthrough(OpenAIPassthrough, ABC):
    """One response of either API; the data of every event repeats its name."""

    _now_ns = 0

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """Pass on the engine's bytes. `now_ns` is nanoseconds since the epoch."""
        self._now_ns = now_ns
        return super().feed(data, now_ns)

    def finish(self, now_ns: int) -> bytes:
        """End the response at `now_ns` nanoseconds since the epoch."""
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
        self._read_event(payload)
        if kind in _WITH_RESPONSE:
            self._count(payload)
            payload = self._rename(payload)
        elif kind == "content_block_start":
            payload = _with_signature(payload)
        self.complete = kind in _LAST
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)

    def _count(self, payload: bytes) -> None:
        try:
            event = msgspec.json.decode(payload, type=_ResponseEvent)
        except msgspec.DecodeError:
            return  # passed on unread
        usage = event.usage or (event.response and event.response.usage)
        if usage:
            cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
            self.prompt_tokens = usage.input_tokens + cached
            self.completion_tokens = usage.output_tokens

    def _rename(self, payload: bytes) -> bytes:
        # Decoded, as the client's own text may stand before the name.
        try:
            fields = msgspec.json.decode(payload, type=Fields)
        except msgspec.DecodeError:
            return payload
        for key in _RESPONSE_KEYS:
            if key in fields:
                fields[key] = msgspec.Raw(self._rename(bytes(fields[key])))
        if "model" in fields:
            fields["model"] = msgspec.Raw(msgspec.json.encode(self._requested_name))
            fields = self._rebuilt(fields)
        return msgspec.json.encode(fields)

    @abstractmethod
    def _rebuilt(self, fields: Fields) -> Fields:
        """Give a whole response the keys of its API."""
        ...

    def _read_event(self, payload: bytes) -> None:
        """Read an event that is about to be passed on."""


class MessagesPassthrough(NamedEventPassthrough):
    """A response of `/v1/messages`."""

    def _rebuilt(self, fields: Fields) -> Fields:
        kept = {"stop_reason": _NULL, "stop_sequence": _NULL} | _pick(fields, _MESSAGE)
        if b'"chatcmpl-' in bytes(fields.get("id", _NULL)):
            kept["id"] = msgspec.Raw(bytes(fields["id"]).replace(b"chatcmpl-", b"msg_"))
        return kept

    def _error(self, error: VllamadError) -> bytes:
        return b"event: error\ndata: %b\n\n" % anthropic_error(_status(error), error.message)


class ResponsesPassthrough(NamedEventPassthrough):
    """A response of `/v1/responses`."""

    _latest = b"{}"

    def _read_event(self, payload: bytes) -> None:
        self._latest = payload

    def _rebuilt(self, fields: Fields) -> Fields:
        kept = {"error": _NULL, "completed_at": _NULL} | _pick(fields, _RESPONSE)
        if bytes(kept.get("metadata", _NULL)) == b"null":
            kept["metadata"] = msgspec.Raw(b"{}")
        if bytes(kept.get("status", _NULL)) == b'"completed"':
            kept["completed_at"] = msgspec.Raw(b"%d" % (self._now_ns // 1_000_000_000))
        if "usage" in kept:
            kept["usage"] = _allowed_usage(kept["usage"])
        return kept

    def _error(self, error: VllamadError) -> bytes:
        """The event that OpenAI documents, with the `error` key that its clients look for."""
        number = msgspec.json.decode(self._latest, type=_Numbered).sequence_number
        fault = {"message": error.message, "type": "api_error", "param": None, "code": None}
        event = {"type": "error", "sequence_number": number + 1, "error": fault}
        event |= {"code": "api_error", "message": error.message, "param": None}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)


def _with_signature(payload: bytes) -> bytes:
    """The start of a content block; a thinking block gets a `signature`, empty as vLLM's are."""
    start = msgspec.json.decode(payload, type=dict[str, object])
    block = start.get("content_block")
    if not is_object(block) or block.get("type") != "thinking":
        return payload
    return msgspec.json.encode(start | {"content_block": {"signature": ""} | block})


def _pick(fields: Fields, allowed: frozenset[str]) -> Fields:
    return {key: value for key, value in fields.items() if key in allowed}


def _allowed_usage(usage: msgspec.Raw) -> msgspec.Raw:
    """The usage without the details that only vLLM has."""
    fields = msgspec.json.decode(usage, type=Fields | None)
    if fields is None:
        return usage
    for name, allowed in _DETAILS.items():
        if details := msgspec.json.decode(fields.get(name, _NULL), type=Fields | None):
            fields[name] = msgspec.Raw(msgspec.json.encode(_pick(details, allowed)))
    return msgspec.Raw(msgspec.json.encode(fields))


def _status(error: VllamadError) -> int:
    return error.status if isinstance(error, EngineRefused) else 500
