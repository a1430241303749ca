"""A client that says exactly the bytes a test wants, and a server to say them to."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import h11
import trio
from hypercorn.typing import ASGIFramework

from vllamad.gateway.server.connection import ServerLimits
from vllamad.gateway.server.listen import serve


def loopback() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


class RawClient:
    """One connection; `read` has a limit of its own so that no test hangs."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._seen = bytearray()

    @property
    def seen(self) -> bytes:
        return bytes(self._seen)

    def forget(self) -> None:
        """Begin anew with what has been seen."""
        self._seen.clear()

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, wanted: bytes, limit: float = 5) -> bytes:
        """Read until `wanted` has been seen; everything seen so far."""
        with trio.fail_after(limit):
            while wanted not in self._seen:
                data = await self.stream.receive_some()
                assert data, f"closed after {self.seen!r}"
                self._seen += data
        return self.seen

    async def until_eof(self, limit: float = 1) -> bytes:
        """Read to the end of the connection; everything seen since it was opened."""
        with trio.fail_after(limit):
            while data := await self.stream.receive_some():
                self._seen += data
        return self.seen

    async def until_dead(self, limit: float = 1) -> None:
        """Read until the connection is gone, in whatever way."""
        with trio.fail_after(limit):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass


class Server:
    """A running server under test."""

    def __init__(self, address: tuple[str, int], shutdown: trio.Event) -> None:
        self.address = address
        self.shutdown = shutdown
        self.retire = trio.Event()
        self.closed = trio.Event()  # it takes no more connections
        self.ended = trio.Event()

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[RawClient]:
        async with await trio.open_tcp_stream(*self.address) as stream:
            yield RawClient(stream)

    async def ask(self, request: bytes, limit: float = 2) -> bytes:
        """Say one request on a connection of its own, and read to the end."""
        async with self.client() as client:
            await client.say(request)
            return await client.until_eof(limit)

    async def get(self, path: str = "/") -> bytes:
        return await self.ask(
            f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
        )


@asynccontextmanager
async def serving(app: ASGIFramework, limits: ServerLimits | None = None) -> AsyncGenerator[Server]:
    sock = loopback()
    server = Server(sock.getsockname(), trio.Event())

    async def run(task_status: trio.TaskStatus[trio.Event]) -> None:
        await serve(
            app,
            [sock],
            shutdown=server.shutdown,
            retire=server.retire,
            limits=limits or ServerLimits(drain=0.2),
            task_status=task_status,
        )
        server.ended.set()

    async with trio.open_nursery() as nursery:
        server.closed = await nursery.start(run)
        try:
            yield server
        finally:
            server.shutdown.set()
            with trio.move_on_after(10):
                await server.ended.wait()
            nursery.cancel_scope.cancel()


def parse(answer: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one complete answer."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    connection.receive_data(b"")
    head = connection.next_event()
    while isinstance(head, h11.InformationalResponse):
        head = connection.next_event()
    assert isinstance(head, h11.Response), head
    body = bytearray()
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return head.status_code, headers, bytes(body)
