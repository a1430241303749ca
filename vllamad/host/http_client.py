"""One HTTP exchange with one local engine over a Unix socket, aborted by closing it.

It must not know what the engine says: it moves heads and bodies. An answer can be iterated like any
httpx response, or its socket be taken over (`detach`) by whoever wants to read it himself.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import inf
from typing import Final, cast

import h11
import httpx
import trio

from vllamad.errors import Unavailable, WorkerLost
from vllamad.wire.chunked import BodyReader, ChunkReader, PlainReader

HEAD_LIMIT: Final = 64 * 1024
READ_SIZE: Final = 64 * 1024
CONNECT_TIMEOUT: Final = 5.0

_BUSY_PAUSE = 0.01  # a full backlog of a Unix socket cannot be waited for, only tried again


@dataclass(slots=True, kw_only=True)
class Detached:
    """An answer taken over: the new owner reads and closes `sock`, after feeding `early` first."""

    sock: socket.socket
    early: bytes  # what the read of the head brought of the body
    reader: BodyReader


class EngineBody(httpx.AsyncByteStream):
    """The body of an answer, decoded; each item is all that one read brought."""

    def __init__(self, sock: socket.socket, early: bytes, reader: BodyReader) -> None:
        self._sock: socket.socket | None = sock
        self._early = early
        self._reader = reader

    def detach(self) -> Detached:
        """Hand over the socket. Afterwards this body is empty and closing it does nothing."""
        sock, self._sock = self._sock, None
        assert sock is not None, "a body can be taken over once, and not after it was closed"
        return Detached(sock=sock, early=self._early, reader=self._reader)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        data = self._early
        while self._sock is not None:
            if data and (payload := decode(self._reader, data)):
                yield payload
            if self._reader.done:
                return
            data = await _receive(self._sock)
            if not data:
                if isinstance(self._reader, PlainReader) and self._reader.open_ended:
                    return
                raise WorkerLost("the engine closed the connection in the middle of its answer")

    async def aclose(self) -> None:
        if self._sock is not None:
            close(self._sock)
            self._sock = None


class UnixTransport(httpx.AsyncBaseTransport):
    """A new connection for each request, to the socket named by the request's extension "uds".

    Raises WorkerLost where the engine cannot be reached or does not speak HTTP. The only time
    limit it keeps is httpx's `connect`; the caller's cancel scopes are the others.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        message = _spell(connection, request, await request.aread())
        sock = await _connect(str(request.extensions["uds"]), timeouts.get("connect") or inf)
        try:
            await _send(sock, message)
            head = await _read_head(connection, sock)
            reader = _body_reader(request.method, head)
        except BaseException:
            close(sock)
            raise
        early, _ = connection.trailing_data
        body = EngineBody(sock, early, reader)
        return httpx.Response(
            head.status_code, headers=list(head.headers), stream=body, extensions={"body": body}
        )


def engine_client() -> httpx.AsyncClient:
    """The client for inference on all engines; name the socket with `extensions={"uds": path}`."""
    return httpx.AsyncClient(
        transport=UnixTransport(),
        base_url="http://engine",
        timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
    )


def client_for(uds: str) -> httpx.AsyncClient:
    """A stock client for the small questions to one engine: health, metrics, models."""
    # the engine drops idle connections after 5 s; a pool that keeps them longer gets resets
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=2)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=uds, limits=limits),
        base_url="http://engine",
        timeout=httpx.Timeout(CONNECT_TIMEOUT),
    )


def engine_body(response: httpx.Response) -> EngineBody:
    """The body behind a response of `engine_client`, to be taken over."""
    return cast("EngineBody", response.extensions["body"])  # put there by UnixTransport


def decode(reader: BodyReader, data: bytes) -> bytes:
    """Return the payload in `data`; broken framing is a lost engine."""
    try:
        return reader.feed(data)
    except ValueError as error:
        raise WorkerLost(f"the engine sent a malformed answer: {error}") from error


def close(sock: socket.socket) -> None:
    """Close a socket that trio may be waiting on."""
    if sock.fileno() >= 0:
        trio.lowlevel.notify_closing(sock)
        sock.close()


async def _connect(uds: str, timeout: float) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"cannot open a socket: {error.strerror}") from error
    try:
        sock.setblocking(False)
        with trio.fail_after(timeout):
            while True:
                if _connected(sock, uds):
                    return sock
                await trio.sleep(_BUSY_PAUSE)
    except BaseException as error:
        sock.close()
        if isinstance(error, trio.TooSlowError):
            raise WorkerLost(f"the engine took no connection within {timeout:g} s") from error
        if isinstance(error, OSError):
            raise WorkerLost(f"cannot reach the engine: {error.strerror}") from error
        raise


def _connected(sock: socket.socket, uds: str) -> bool:
    try:
        sock.connect(uds)
    except BlockingIOError:
        return False
    return True


def _spell(connection: h11.Connection, request: httpx.Request, content: bytes) -> bytes:
    """The whole request as bytes."""
    head = h11.Request(
        method=request.method, target=request.url.raw_path, headers=request.headers.raw
    )
    return b"".join(
        (
            connection.send(head),
            connection.send(h11.Data(data=content)) if content else b"",
            connection.send(h11.EndOfMessage()),
        )
    )


async def _send(sock: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError:
            return  # it may have answered, and closed, before it read all: the answer will tell


async def _receive(sock: socket.socket) -> bytes:
    """The next bytes; none at the end of the connection, however it ended."""
    while True:
        try:
            await trio.lowlevel.wait_readable(sock)
            return sock.recv(READ_SIZE)
        except BlockingIOError:
            continue
        except OSError:
            return b""


async def _read_head(connection: h11.Connection, sock: socket.socket) -> h11.Response:
    try:
        while not isinstance(event := connection.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                data = await _receive(sock)
                if not data:
                    raise WorkerLost("the engine closed the connection before it answered")
                connection.receive_data(data)
    except h11.RemoteProtocolError as error:
        raise WorkerLost(f"the engine sent a malformed answer: {error}") from error
    return event


def _body_reader(method: str, head: h11.Response) -> BodyReader:
    headers = dict(head.headers)
    if method == "HEAD" or head.status_code in {204, 304}:
        return PlainReader(0)
    if b"transfer-encoding" in headers:  # h11 has refused every coding but chunked
        return ChunkReader()
    length = headers.get(b"content-length")
    return PlainReader(None if length is None else int(length))
