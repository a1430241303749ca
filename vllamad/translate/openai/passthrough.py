"""The passthrough of an engine's OpenAI response, with the model's name replaced.

Has no clock and does no I/O; the counterpart of `ollama/stream.py` for `/v1`.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import VllamadError, WorkerLost
from vllamad.translate.engine.fit_to_worker import PLAIN, AnswerForm
from vllamad.translate.engine.sse import EventReader
from vllamad.translate.error_bodies import STOPPED, engine_refusal

DONE = b"[DONE]"
_NO_CHOICES = b'"choices":[]'  # only the event with the usage has no choices


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: _Usage | None = None


class _Fault(msgspec.Struct):
    code: int = 500


class _Failure(msgspec.Struct):
    error: _Fault


class OpenAIPassthrough:
    """One response; with `stream` it is events, else one JSON object.

    The engine writes its served name of the model; the client gets the name it requested. An engine
    that breaks off ends the stream with an error event, without `[DONE]`. The engine always sends
    the usage, for our log; without `usage` it is hidden from the client. Subclasses that know the
    keys of their API apply `form`.
    """

    def __init__(
        self,
        *,
        stream: bool,
        served_name: str,
        requested_name: str,
        usage: bool = True,
        form: AnswerForm = PLAIN,
    ) -> None:
        self.failed: VllamadError | None = None
        self.started = False
        self.complete = False
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._stream = stream
        self._shows_usage = usage
        self._form = form
        self._served_model = b'"model":%b' % msgspec.json.encode(served_name)
        self._requested_name = requested_name
        self._requested_model = b'"model":%b' % msgspec.json.encode(requested_name)
        self._events = EventReader()
        self._body = bytearray()

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """Pass on bytes of the engine. `now_ns` is unused: these events have no time of ours."""
        if not self._stream:
            self._body += data
            return b""
        out = b""
        for payload in self._events.feed(data):
            out += self._event(payload)
            self.started = self.started or bool(out)
        return out

    def finish(self, now_ns: int) -> bytes:
        """End the response: the object, or nothing where it was sent as events."""
        if not self._stream:
            self.started = True
            body = bytes(self._body)
            self._count(body)
            return self._rename(body)
        return b"" if self.complete else self.fail(WorkerLost(STOPPED))

    def fail(self, error: VllamadError) -> bytes:
        """End with `error`: its event, or b"" while an HTTP status can still be sent."""
        if self.failed is not None:
            return b""
        self.failed = error
        return self._error(error) if self.started else b""

    def _error(self, error: VllamadError) -> bytes:
        fault = {"message": error.message, "type": "api_error", "param": None, "code": None}
        return b"data: %b\n\n" % msgspec.json.encode({"error": fault})

    def _event(self, payload: bytes) -> bytes:
        if self.failed is not None:
            return b""  # no event follows an error, not even `[DONE]`
        if payload.startswith(b'{"error"'):
            return self.fail(engine_refusal(_code(payload), payload))
        if payload == DONE:
            self.complete = True
            return b"data: [DONE]\n\n"
        return self._translate(payload)

    def _translate(self, payload: bytes) -> bytes:
        """Translate an event that is neither an error nor the end."""
        if _NO_CHOICES in payload:
            self._count(payload)
            if not self._shows_usage:
                return b""
        return b"data: %b\n\n" % self._rename(payload)

    def _count(self, payload: bytes) -> None:
        try:
            usage = msgspec.json.decode(payload, type=_Counted).usage or _Usage()
        except msgspec.DecodeError:
            return  # passed on unread
        self.prompt_tokens = usage.prompt_tokens
        self.completion_tokens = usage.completion_tokens

    def _rename(self, payload: bytes) -> bytes:
        # The name comes before any text of the model, so the first match is the right one.
        if self._served_model == self._requested_model:
            return payload
        return payload.replace(self._served_model, self._requested_model, 1)


def _code(payload: bytes) -> int:
    """The HTTP status of an error event of the engine."""
    try:
        return msgspec.json.decode(payload, type=_Failure).error.code
    except msgspec.DecodeError:
        return 500
