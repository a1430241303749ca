"""One task that moves the tokens of all streams: engine socket to client socket, without a detour.

It must not know HTTP beyond the framing of a chunk, nor what the bytes mean. Per-stream tasks and
the server's own send path cost several times as much a token; here all engine sockets that are
ready are served in one pass. A stream's own task only starts it, waits, and steps in when the
client is slower than the engine: while it does, the engine is not read, and so stops writing.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from vllamad.gateway.inference.upstream import UpstreamResponse, engine_timeout

SOCKETS_A_PASS: Final = 64  # then other tasks get their turn


class TokenPump:
    """Calls each registered socket's turn when it is readable."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._turns: dict[int, Callable[[int], None]] = {}

    def register(self, sock: socket.socket, turn: Callable[[int], None]) -> None:
        """Call `turn`, which never raises, with the wall-clock ns whenever `sock` is readable."""
        self._turns[sock.fileno()] = turn
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def unregister(self, sock: socket.socket) -> None:
        """Forget `sock`, while it is still open. Doing so twice is fine."""
        if self._turns.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    async def run(self) -> None:
        """Serve all registered sockets, for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            now_ns = time.time_ns()
            for fd, _ in self._epoll.poll(0, SOCKETS_A_PASS):
                self._turns[fd](now_ns)

    def close(self) -> None:
        self._epoll.close()


@asynccontextmanager
async def open_hub() -> AsyncGenerator[TokenPump]:
    """A hub that runs until the block is left."""
    hub = TokenPump()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            yield hub
            nursery.cancel_scope.cancel()
    finally:
        hub.close()


class PumpedStream:
    """One stream on the hub."""

    def __init__(self, exchange: UpstreamResponse, client: trio.SocketStream) -> None:
        self._exchange = exchange
        self._client = client
        self._unsent = b""
        self._gone = False
        self._wake = trio.Event()
        self._hub: TokenPump

    async def run(self, hub: TokenPump) -> None:
        """Write chunks until the exchange is over. Raises BrokenResourceError for a lost client."""
        self._hub = hub
        try:
            while not self._exchange.over:
                await self._on_hub()
                await self._send_unsent()
        finally:
            hub.unregister(self._exchange.sock)

    async def _on_hub(self) -> None:
        """Be served by the hub until something needs this task: the end, or a slow client."""
        self._wake = trio.Event()
        self._hub.register(self._exchange.sock, self._turn)
        while not self._wake.is_set():
            with trio.CancelScope(deadline=self._exchange.deadline):
                await self._wake.wait()
            if not self._wake.is_set() and trio.current_time() >= self._exchange.deadline:
                self._stop()
                self._unsent += chunk(self._exchange.end(engine_timeout()))

    def _turn(self, now_ns: int) -> None:
        """Read once and write what came of it, as far as the client takes it."""
        out = self._exchange.take(now_ns)
        if out:
            self._write(chunk(out))
        if self._exchange.over:
            self._stop()

    def _write(self, data: bytes) -> None:
        try:
            # the descriptor is asked for each time: once closed, its number belongs to another
            sent = os.write(self._client.socket.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._gone = self._exchange.over = True
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._stop()

    def _stop(self) -> None:
        self._hub.unregister(self._exchange.sock)
        self._wake.set()

    async def _send_unsent(self) -> None:
        if self._gone:
            raise trio.BrokenResourceError
        unsent, self._unsent = self._unsent, b""
        if not unsent:
            return
        try:
            with trio.fail_after(self._exchange.limits.write_stall):
                await self._client.send_all(unsent)
        except (trio.ClosedResourceError, trio.TooSlowError) as error:
            self._client.socket.close()
            raise trio.BrokenResourceError from error
        self._exchange.expect()  # the engine was not listened to meanwhile


def chunk(data: bytes) -> bytes:
    """One HTTP/1.1 chunk; none for no data, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
