"""One client connection: Hypercorn's HTTP/1.1 on a socket, time limits and an end of our own.

It must not know any route, nor that there are other connections. Only HTTP/1.x is spoken: no
WebSockets, no HTTP/2. An application reaches the connection of a request by `request_state.py`.
A client that shuts down its writing side has left: there is no telling it from one that closed.

Why not Hypercorn's TCPServer: there an application that cancels itself when the client is done
(every quart-trio one) also cancels the closing of its connection, so connections are never closed;
an exception in one connection ends the server; and a client that never reads holds it up for ever.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper

from vllamad.gateway.server.request_state import ServerLink, linked_state

HEAD_LIMIT: Final = 16 * 1024  # bytes of a request head
TARGET_LIMIT: Final = 8 * 1024
HEADERS_LIMIT: Final = 100
PIPELINE_LIMIT: Final = 64 * 1024  # bytes a client may send ahead of its turn
PIPELINE_PATIENCE: Final = 1.0  # how long it may send more: until then its leaving goes unnoticed
RECV_SIZE: Final = 64 * 1024
DROP_LIMIT: Final = 256 * 1024  # bytes of an unwanted body that we read
SMALL_BODY: Final = 1 << 20  # bytes anybody may send, however many others do
SEND_PIECE: Final = 64 * 1024  # what `write_stall` is measured on
LINGER: Final = 2.0  # how long we read on after our last word, so that it is not reset away

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Durations are seconds."""

    drain: float = 30.0  # how long open streams may go on once asked to stop
    keep_alive: float = 75.0  # longer than clients keep idle connections, or they meet resets
    head: float = 10.0  # from the first byte of a request head to its last
    body_gap: float = 15.0  # between two bytes of a request body
    write_stall: float = 30.0  # a client that takes nothing for so long is gone
    connections: int = 4096
    bodies: int = 256 << 20  # bytes of all bodies that have not come whole yet
    silence: float = 1.0  # who has not asked anything for so long makes way when it gets crowded
    last_request: float = 1.0  # once asked to stop: for a request that may be on its way already


@dataclass(slots=True, kw_only=True)
class Shared:
    """What all connections of a server have in common."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    limits: ServerLimits
    arriving: Counter[Connection] = field(default_factory=Counter["Connection"])  # bytes of bodies
    leaving_since: float = inf  # from then on every answer says `connection: close`

    def take_leave(self) -> None:
        self.leaving_since = trio.current_time()
        self.config.keep_alive_max_requests = 0


class Connection:
    """Reads, writes and closes one accepted stream."""

    def __init__(self, shared: Shared, stream: trio.SocketStream) -> None:
        self._shared = shared
        self._stream = stream
        self._send_lock = trio.Lock()
        self._conversation = trio.CancelScope()  # over once nothing more is to be read
        self._waiting = trio.CancelScope()  # one wait for bytes
        self._idle_since = trio.current_time()
        self._head_since: float | None = None
        self._protocol: Protocol

    async def run(self) -> None:
        """Serve the client until either side is done; leaves the socket closed."""
        sock = self._stream.socket
        try:
            with trio.CancelScope() as life:
                async with TaskGroup() as tasks:
                    self._protocol = Protocol(
                        self._shared.app,
                        self._shared.config,
                        self._shared.context,
                        tasks,
                        linked_state(
                            ServerLink(stream=self._stream, stop_counting=self._stop_counting)
                        ),
                        False,
                        _address(sock.getpeername()),
                        _address(sock.getsockname()),
                        self._on_event,
                    )
                    with self._conversation:
                        await self._read()
                    await self._end()
                    life.cancel()
        finally:
            self._shared.arriving.pop(self, None)
            self.abort()

    @property
    def silent_since(self) -> float:
        """Since when this client has not asked for anything; infinite while it is being served."""
        return self._idle_since if self._protocol.between_requests else inf

    def _stop_counting(self) -> None:
        self._protocol.taken = True

    def wake(self) -> None:
        """Have the reader look again at what it waits for."""
        self._waiting.cancel()

    def abort(self) -> None:
        """Close the socket now; tasks that wait on it fail."""
        self._stream.socket.close()
        self._conversation.cancel()

    async def _on_event(self, event: Event) -> None:
        """Do what the protocol asks. Only writing awaits: the asking task may be cancelled."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._conversation.cancel()
        elif isinstance(event, Updated):
            self._idle_since = trio.current_time() if event.idle else self._idle_since
            self.wake()

    async def _write(self, data: bytes) -> None:
        if self._send_lock.locked():
            await self._send_lock.acquire()
        else:
            self._send_lock.acquire_nowait()
        try:
            if left := data[self._written_at_once(data) :]:
                await self._write_slowly(left)
        finally:
            self._send_lock.release()
        await (
            trio.lowlevel.checkpoint()
        )  # a client that writes on and on must not hold up the others

    def _written_at_once(self, data: bytes) -> int:
        """How much of it the socket takes without waiting; almost always that is all."""
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return len(data)

    async def _write_slowly(self, data: bytes) -> None:
        # shielded, because half a chunk would spoil the stream; the limit makes the shield safe
        limit = self._shared.limits.write_stall
        try:
            for at in range(0, len(data), SEND_PIECE):
                with trio.fail_after(limit) as scope:
                    scope.shield = True
                    await self._stream.send_all(data[at : at + SEND_PIECE])
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self.abort()

    async def _read(self) -> None:
        while True:
            await self._protocol.pump()
            data = await self._receive()
            if data is None:
                continue
            if not data:
                return
            self._protocol.http.receive_data(data)
            if self._too_much(len(data)):
                await self._protocol.refuse(503)
                return
            if self._crowded and not await self._caught_up():
                self.abort()
                return

    def _too_much(self, received: int) -> bool:
        """Count buffered body bytes; a body above 1 MiB ends its connection at the global limit."""
        arriving = self._shared.arriving
        if not self._protocol.in_body or self._protocol.taken:
            arriving.pop(self, None)
            return False
        arriving[self] += received
        return arriving[self] > SMALL_BODY and arriving.total() > self._shared.limits.bodies

    @property
    def _crowded(self) -> bool:
        return self._protocol.answering and self._protocol.buffered > PIPELINE_LIMIT

    async def _caught_up(self) -> bool:
        """Wait for the client's turn: it has its answer whole a little before we are done."""
        deadline = trio.current_time() + PIPELINE_PATIENCE
        while self._crowded and trio.current_time() < deadline:
            with trio.CancelScope(deadline=deadline) as self._waiting:
                await trio.sleep_forever()
        return not self._crowded

    async def _receive(self) -> bytes | None:
        """The next bytes; none at the end, None if woken."""
        deadline = self._deadline()
        try:
            with trio.CancelScope(deadline=deadline) as self._waiting:
                return bytes(await self._stream.receive_some(RECV_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        if trio.current_time() < deadline:
            return None
        if self._protocol.in_body or self._protocol.buffered:
            await self._protocol.refuse(408)
        return b""

    def _deadline(self) -> float:
        """Until when the next bytes must have come."""
        now, limits = trio.current_time(), self._shared.limits
        began = self._protocol.between_requests and self._protocol.buffered
        if began or self._protocol.dropping:
            self._head_since = now if self._head_since is None else self._head_since
            return self._head_since + limits.head
        self._head_since = None
        if self._protocol.between_requests:
            if (leaving_since := self._shared.leaving_since) == inf:
                return self._idle_since + limits.keep_alive
            # Who has not been told `connection: close` may be sending the next request right now:
            # closing at once would reset it.
            return max(self._idle_since, leaving_since) + limits.last_request
        return now + limits.body_gap if self._protocol.in_body else inf

    async def _end(self) -> None:
        """Say no more, tell the application, and hear the client out, but not for long."""
        with trio.move_on_after(LINGER):
            try:
                self._stream.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client was quicker
            await self._protocol.handle(Closed())
            try:
                while self._protocol.interrupted and await self._stream.receive_some(RECV_SIZE):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


class Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1, less the upgrades, and with the requests we refuse.

    Unlike the original it never waits while a request is being answered, so that its connection
    goes on reading and sees the client leave, also behind pipelined data.
    """

    taken = False  # the body of this request goes where it takes no memory
    _dropped = 0  # bytes of a body that came after its answer

    @property
    def http(self) -> h11.Connection:
        assert isinstance(self.connection, h11.Connection), "upgrades are refused"
        return self.connection

    @property
    def between_requests(self) -> bool:
        return self.http.their_state is h11.IDLE

    @property
    def in_body(self) -> bool:
        return self.http.their_state is h11.SEND_BODY

    @property
    def dropping(self) -> bool:
        """What comes of the body has no reader any more."""
        return self.in_body and self.stream is None

    @property
    def answering(self) -> bool:
        """The request has been read, and it is our turn."""
        return not self.between_requests and not self.in_body

    @property
    def interrupted(self) -> bool:
        """The client may still be sending: closing now could reset away our last answer."""
        return self.http.their_state in {h11.SEND_BODY, h11.ERROR} or self.buffered > 0

    @property
    def buffered(self) -> int:
        """Bytes received and not yet parsed."""
        return len(self.http.trailing_data[0])

    async def pump(self) -> None:
        """Act on everything received so far that belongs to the current request."""
        while not self.answering:
            if self.http.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                await self.refuse(error.error_status_hint)
                return
            if event is h11.NEED_DATA:
                return
            if isinstance(event, h11.Request):
                self.taken = False
                if status := refusal(event):
                    await self.refuse(status)
                    return
                await self._create_stream(_with_target(event, path_of(event) or b""))
            elif self.stream is None:
                await self._drop(event)
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    async def _maybe_recycle(self) -> None:
        await self._close_stream()
        if self.in_body and self.http.our_state is h11.DONE:
            # It was answered before it was read: `pump` drops the rest, and comes back.
            await self.send(Updated(idle=False))
            return
        self._dropped = 0
        await super()._maybe_recycle()

    async def _drop(self, event: object) -> None:
        """Skip an unread body; closing would cost the client its next request."""
        if isinstance(event, h11.Data):
            self._dropped += len(event.data)
        if self._dropped > DROP_LIMIT:
            await self.send(Closed())
        elif isinstance(event, h11.EndOfMessage):
            await self._maybe_recycle()

    async def refuse(self, status: int) -> None:
        """Answer `status`, where an answer is still possible, and close."""
        if self.http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())


def _address(name: tuple[str, int] | str) -> tuple[str, int] | None:
    """Host and port out of what a socket says of itself; a Unix socket has none."""
    return None if isinstance(name, str) else name[:2]


def refusal(request: h11.Request) -> int | None:
    """The status a request is refused with before any application sees it, or None."""
    headers = [(name, value.lower()) for name, value in request.headers]
    names = {name for name, _ in headers}
    size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in headers)
    # ambiguous framing is how requests are smuggled past a proxy in front of us
    unclear = b"content-length" in names or request.http_version == b"1.0"
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505
    if request.method in {b"CONNECT", b"TRACE"}:
        return 501
    if len(request.target) > TARGET_LIMIT:
        return 414
    if len(headers) > HEADERS_LIMIT or size > HEAD_LIMIT:
        return 431
    if b"transfer-encoding" in names and unclear:
        return 400
    if path_of(request) is None:
        return 400
    # Hypercorn would take it for an upgrade with any kind of space around the word.
    websocket = any(name == b"upgrade" and b"websocket" in value for name, value in headers)
    return 400 if websocket else None


def path_of(request: h11.Request) -> bytes | None:
    """The path and query asked for; None for a target without, or on another host than `Host`."""
    if request.target.startswith(b"/"):
        return request.target
    whole = _ABSOLUTE.fullmatch(request.target)
    hosts = [value.lower() for name, value in request.headers if name == b"host"]
    if whole is None or [whole[1].lower()] != hosts:
        return None
    return (whole[2] or b"/") + (whole[3] or b"")


def _with_target(request: h11.Request, target: bytes) -> h11.Request:
    if request.target == target:
        return request
    return h11.Request(
        method=request.method,
        target=target,
        headers=list(request.headers),
        http_version=request.http_version,
    )
