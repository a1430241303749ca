"""An engine's answer in events that name their kind: OpenAI's Responses, Anthropic's messages.

Passed on as it is, as `verbatim.py` does for events without names; only what the APIs call things
differs.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import EngineRefused, VllamadError
from vllamad.wire.refusals import anthropic_error, engine_refusal
from vllamad.wire.verbatim import Verbatim

_LAST = frozenset({"message_stop", "response.completed", "response.failed", "response.incomplete"})
# The events that hold the answer as far as it is known: its model and its usage.
_HOLDING = _LAST | {"message_start", "message_delta", "response.created", "response.in_progress"}
_HOLDERS = ("message", "response")


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


class Named(Verbatim):
    """One answer of either API; the name of an event is always also in its data."""

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
            fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return payload
        for holder in _HOLDERS:
            if holder in fields:
                fields[holder] = msgspec.Raw(self._renamed(bytes(fields[holder])))
        if "model" in fields:
            fields["model"] = msgspec.Raw(msgspec.json.encode(self._asked_name))
        return msgspec.json.encode(fields)

    def _seen(self, payload: bytes) -> None:
        """An event is about to be passed on."""


class Messages(Named):
    """An answer of `/v1/messages`."""

    def _error(self, error: VllamadError) -> bytes:
        return b"event: error\ndata: %b\n\n" % anthropic_error(_status(error), error.message)


class Responses(Named):
    """An answer of `/v1/responses`."""

    _latest = b"{}"

    def _seen(self, payload: bytes) -> None:
        self._latest = payload

    def _error(self, error: VllamadError) -> bytes:
        """As OpenAI documents it, and with the `error` by which its clients know a failure."""
        number = msgspec.json.decode(self._latest, type=_Numbered).sequence_number
        fault = {"message": error.message, "type": "api_error", "param": None, "code": None}
        event = {"type": "error", "sequence_number": number + 1, "error": fault}
        event |= {"code": "api_error", "message": error.message, "param": None}
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)


def _status(error: VllamadError) -> int:
    return error.status if isinstance(error, EngineRefused) else 500
