"""One question to an engine, and its answer becoming a client's, read by read.

It must not know how the client is written to, nor who waits for the engine's socket: the hub and
the plain loop both call `take` when there is something to read.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from vllamad.errors import EngineRefused, VllamadError, WorkerLost
from vllamad.host.log import event, named
from vllamad.host.log_events import LogEvent
from vllamad.http.engine_client import JSON, EngineResponse, decode_body, open_ended, post_to_engine
from vllamad.translate.error_bodies import FAILED, STOPPED, engine_refusal, without_private_text

log = logging.getLogger(__name__)

READ_SIZE: Final = 16 * 1024  # more would let one pass over many streams hold the loop too long
REFUSAL_LIMIT: Final = 64 * 1024  # bytes read of an engine's refusal

Revoked = Callable[[], Awaitable[str]]  # returns, with the reason, once the worker is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """Durations are seconds."""

    first: float = 300.0  # until the engine says the first thing
    gap: float = 60.0  # between two things it says
    write_stall: float = 30.0  # a client that takes nothing for so long is gone
    reason: float = 0.5  # the supervisor's word on a dead worker comes a little after its end


class ResponseTranslator(Protocol):
    """What is made of the engine's body; it ends in exactly one of `finish` and `failed`."""

    @property
    def failed(self) -> VllamadError | None: ...

    @property
    def started(self) -> bool:
        """True once a byte has come out: it is then too late for a status."""
        ...

    @property
    def complete(self) -> bool:
        """True once the engine has said that nothing more comes."""
        ...

    def feed(self, data: bytes, now_ns: int) -> bytes: ...

    def finish(self, now_ns: int) -> bytes: ...

    def fail(self, error: VllamadError) -> bytes: ...


class UpstreamResponse:
    """The engine's socket and what is made of it. `over` says that nothing more is to be read."""

    def __init__(self, output: ResponseTranslator, limits: RelayLimits) -> None:
        self.output = output
        self.limits = limits
        self.over = False
        self.deadline = trio.current_time() + limits.first  # until when it must say something
        self.sock: socket.socket
        self._answer: EngineResponse | None = None
        self._asking = trio.CancelScope()
        self._early = b""
        self._cut = False  # the engine's connection ended before its answer did
        self._reason = ""
        self._told = trio.Event()

    async def ask(self, endpoint: str, path: str, body: bytes, content_type: str = JSON) -> None:
        """Post to the engine at the Unix socket `endpoint`, and wait for the head.

        Raises EngineRefused for a refusal of the engine's, WorkerLost when it is gone or silent.
        """
        self._asking.deadline = self.deadline
        with self._asking:
            self._answer = answer = await post_to_engine(endpoint, path, body, content_type)
            if answer.status != 200:
                raise noted(engine_refusal(answer.status, await answer.read(REFUSAL_LIMIT)))
            self.begin(answer)
        if self._asking.cancelled_caught:
            raise engine_gone(self._reason) if self._told.is_set() else engine_timeout()

    def begin(self, answer: EngineResponse) -> None:
        """From here on its body is taken."""
        self._answer = answer
        self.sock, self._early, self._reader = answer.sock, answer.early, answer.reader
        self.deadline = trio.current_time() + self.limits.first

    def take(self, now_ns: int) -> bytes:
        """Read once, without waiting; return what the client gets for it.

        `now_ns` is wall-clock nanoseconds since the epoch. Never raises: the stream of one client
        must not end the hub, and errors are part of the answer.
        """
        try:
            data = self._early or self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self._early = b""
        self.expect()
        try:
            return self._translate(data, now_ns)
        except VllamadError as error:
            return self.end(error)
        except Exception:  # a bug in the translation ends this answer and no other
            log.exception("cannot translate a response", extra=named(LogEvent.INTERNAL_ERROR))
            return self.end(EngineRefused(FAILED, status=500))

    async def more(self) -> bytes:
        """Wait for something to read and take it; if it takes too long, end with an error."""
        if self._early:
            await trio.lowlevel.checkpoint()
            return self.take(time.time_ns())
        with trio.CancelScope(deadline=self.deadline) as scope:
            await trio.lowlevel.wait_readable(self.sock)
        return self.end(engine_timeout()) if scope.cancelled_caught else self.take(time.time_ns())

    def expect(self) -> None:
        """Start to wait anew: it has just been heard, or was not listened to."""
        self.deadline = trio.current_time() + self.limits.gap

    def end(self, error: VllamadError) -> bytes:
        """Stop here; return the words for it, if any."""
        self.over = True
        return self.output.fail(error)

    async def last_words(self) -> bytes:
        """Once `over`: what is still to be said of an engine that broke off."""
        if not self._cut:
            return b""
        with trio.move_on_after(self.limits.reason):
            await self._told.wait()
        return self.output.fail(engine_gone(self._reason))

    async def heed(self, revoked: Revoked) -> None:
        """Break off once `revoked` returns, with the reason it gives."""
        self._reason = await revoked()
        self._told.set()
        self._asking.cancel()
        try:
            if self._answer is not None:  # a task that waits for the socket wakes to its end
                self._answer.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it has ended by itself

    def close(self) -> None:
        """Nothing more is wanted: the engine sees it, and stops."""
        if self._answer is not None:
            self._answer.close()

    def _translate(self, data: bytes, now_ns: int) -> bytes:
        ended = not data
        if ended and not open_ended(self._reader):
            self.over = self._cut = True
            return b""
        payload = decode_body(self._reader, data)
        out = self.output.feed(payload, now_ns) if payload else b""
        if self.output.failed is not None:
            noted(self.output.failed)
            self.over = True
        elif self.output.complete or self._reader.done or ended:
            self.over = True
            out += self.output.finish(now_ns)
        return out


@asynccontextmanager
async def exchange(
    output: ResponseTranslator, revoked: Revoked, limits: RelayLimits
) -> AsyncGenerator[UpstreamResponse]:
    """An exchange yet to begin; leaving the block closes it, and so aborts the request."""
    new = UpstreamResponse(output, limits)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(new.heed, revoked)
            try:
                yield new
            finally:
                nursery.cancel_scope.cancel()
    finally:
        new.close()


def noted(error: VllamadError) -> VllamadError:
    """The same error; what the engine said that no words of ours were known for is in the log."""
    if isinstance(error, EngineRefused) and error.unknown:
        event(
            log,
            logging.WARNING,
            "engine refused a request",
            LogEvent.ENGINE_REFUSED,
            status=error.status,
            outline=error.unknown,
        )
    return error


def engine_timeout() -> WorkerLost:
    """The error for an engine that says nothing for too long."""
    return WorkerLost("the model has stopped answering")


def engine_gone(reason: str) -> WorkerLost:
    """The error for an engine that ended, with what the supervisor says of it."""
    return WorkerLost(without_private_text(reason) if reason.strip() else STOPPED)
