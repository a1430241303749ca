"""An engine's OpenAI answer passed on as it is, but for the model's name and a sudden end.

Has no clock and does no I/O; the counterpart of `replies.py` for `/v1`.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import VllamadError, WorkerLost
from vllamad.translate.engine.fit_to_worker import PLAIN, AnswerForm
from vllamad.translate.engine.sse import EventReader
from vllamad.translate.error_bodies import STOPPED, engine_refusal

DONE = b"[DONE]"
_NO_CHOICES = b'"choices":[]'  # only the event that carries the usage has none


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
    """One answer; `stream` says whether it is events or one JSON object.

    The engine writes its own name of the model; the client gets back the one it asked for. An
    engine that breaks off ends the stream with an error event, and no `[DONE]`. The engine is
    always asked for the usage, for our own log: without `usage` the client does not see it. What
    `form` says is done by answers that know the keys of their API.
    """

    def __init__(
        self,
        *,
        stream: bool,
        served_name: str,
        asked_name: str,
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
        self._name = b'"model":%b' % msgspec.json.encode(served_name)
        self._asked_name = asked_name
        self._asked = b'"model":%b' % msgspec.json.encode(asked_name)
        self._events = EventReader()
        self._body = bytearray()

    def feed(self, data: bytes, now_ns: int) -> bytes:
        """Pass on what the engine wrote. `now_ns` is not needed: nothing here tells the time."""
        if not self._stream:
            self._body += data
            return b""
        out = b""
        for payload in self._events.feed(data):
            out += self._event(payload)
            self.started = self.started or bool(out)
        return out

    def finish(self, now_ns: int) -> bytes:
        """The end of the engine's answer: the object, or nothing where events said it all."""
        if not self._stream:
            self.started = True
            body = bytes(self._body)
            self._count(body)
            return self._renamed(body)
        return b"" if self.complete else self.fail(WorkerLost(STOPPED))

    def fail(self, error: VllamadError) -> bytes:
        """End with `error`: its event, b"" while a status can still say it."""
        if self.failed is not None:
            return b""
        self.failed = error
        return self._error(error) if self.started else b""

    def _error(self, error: VllamadError) -> bytes:
        fault = {"message": error.message, "type": "api_error", "param": None, "code": None}
        return b"data: %b\n\n" % msgspec.json.encode({"error": fault})

    def _event(self, payload: bytes) -> bytes:
        if self.failed is not None:
            return b""  # not even a `[DONE]` follows an error
        if payload.startswith(b'{"error"'):
            return self.fail(engine_refusal(_code(payload), payload))
        if payload == DONE:
            self.complete = True
            return b"data: [DONE]\n\n"
        return self._said(payload)

    def _said(self, payload: bytes) -> bytes:
        """What the client gets for an event that is neither an error nor the end."""
        if _NO_CHOICES in payload:
            self._count(payload)
            if not self._shows_usage:
                return b""
        return b"data: %b\n\n" % self._renamed(payload)

    def _count(self, payload: bytes) -> None:
        try:
            usage = msgspec.json.decode(payload, type=_Counted).usage or _Usage()
        except msgspec.DecodeError:
            return  # not ours to judge
        self.prompt_tokens = usage.prompt_tokens
        self.completion_tokens = usage.completion_tokens

    def _renamed(self, payload: bytes) -> bytes:
        # The name stands before anything the model says, so the first find is the right one.
        return payload if self._name == self._asked else payload.replace(self._name, self._asked, 1)


def _code(payload: bytes) -> int:
    """The status an error event of the engine stands for."""
    try:
        return msgspec.json.decode(payload, type=_Failure).error.code
    except msgspec.DecodeError:
        return 500
