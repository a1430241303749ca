"""One HTTP exchange with one local engine over a Unix socket, aborted by closing it.

Knows no content: it moves heads and bodies. Small requests, such as health, go by httpx. A request
for tokens does not: httpx hands out a stream only through its own reader, and the token pump reads
the socket itself.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from math import inf
from typing import Final

import httpx
import trio

from vllamad.errors import Unavailable, WorkerLost
from vllamad.http.chunked import BodyReader, ChunkReader, PlainReader

HEAD_LIMIT: Final = 64 * 1024
READ_SIZE: Final = 64 * 1024
JSON: Final = "application/json"
CONNECT_TIMEOUT: Final = 5.0

_BUSY_PAUSE = 0.01  # a full backlog of a Unix socket cannot be waited for, only tried again
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)(?: |$)")
_FIELD = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]+):[ \t]*(.*?)[ \t]*")


@dataclass(slots=True, kw_only=True)
class EngineResponse:
    """A response whose head has been read; the caller reads and closes `sock`."""

    status: int
    sock: socket.socket
    early: bytes  # what the read of the head brought of the body
    reader: BodyReader

    async def read(self, limit: float = inf) -> bytes:
        """The body, as far as `limit` bytes. Raises WorkerLost where it breaks off."""
        body = b""
        while len(body) < limit and (piece := await self.more()):
            body += piece
        return body if len(body) <= limit else body[: int(limit)]

    async def more(self) -> bytes:
        """The next piece of the body, none at its end. Raises WorkerLost where it breaks off."""
        data, self.early = self.early, b""
        piece = decode_body(self.reader, data)
        while not piece and not self.reader.done:
            data = await _receive(self.sock)
            if not data and not open_ended(self.reader):
                raise WorkerLost("the engine closed the connection in the middle of its answer")
            if not data:
                break
            piece = decode_body(self.reader, data)
        return piece

    def close(self) -> None:
        close_socket(self.sock)


async def post_to_engine(
    uds: str, path: str, body: bytes, content_type: str = JSON
) -> EngineResponse:
    """Post to the engine at the Unix socket `uds`, over a connection for this one answer.

    Raises WorkerLost where the engine cannot be reached or does not speak HTTP. Only connecting
    has a time limit; the caller's cancel scopes are the others.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    sock = await _connect(uds, CONNECT_TIMEOUT)
    try:
        await _send(sock, head.encode("ascii") + body)
        return await _read_head(sock)
    except BaseException:
        close_socket(sock)
        raise


def client_for(uds: str) -> httpx.AsyncClient:
    """A stock client for the small questions to one engine: health, metrics, models."""
    # the engine drops idle connections after 5 s; a pool that keeps them longer gets resets
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=2)
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=uds, limits=limits),
        base_url="http://engine",
        timeout=httpx.Timeout(CONNECT_TIMEOUT),
    )


def decode_body(reader: BodyReader, data: bytes) -> bytes:
    """Return the payload in `data`; broken framing is a lost engine."""
    try:
        return reader.feed(data)
    except ValueError as error:
        raise WorkerLost(f"the engine sent a malformed answer: {error}") from error


def open_ended(reader: BodyReader) -> bool:
    """Whether the body ends with its connection."""
    return isinstance(reader, PlainReader) and reader.open_ended


def close_socket(sock: socket.socket) -> None:
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


async def _read_head(sock: socket.socket) -> EngineResponse:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await _receive(sock)
        if not piece:
            raise WorkerLost("the engine closed the connection before it answered")
        data += piece
        if len(data) > HEAD_LIMIT + READ_SIZE:
            raise WorkerLost(f"the engine sent a malformed answer: no head in {len(data)} bytes")
    head, _, early = data.partition(b"\r\n\r\n")
    try:
        status, fields = _parsed(head)
        reader = _body_reader(status, fields)
    except ValueError as error:
        raise WorkerLost(f"the engine sent a malformed answer: {error}") from error
    return EngineResponse(status=status, sock=sock, early=early, reader=reader)


def _parsed(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.match(first)
    if status is None:
        raise ValueError(f"it begins with {first[:40]!r}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ValueError(f"this is no header field: {line[:40]!r}")
        fields[field[1].lower()] = field[2]
    return int(status[1]), fields


def _body_reader(status: int, fields: dict[bytes, bytes]) -> BodyReader:
    coding = fields.get(b"transfer-encoding", b"").lower()
    length = fields.get(b"content-length", b"")
    if coding not in {b"", b"chunked"} or (length and not length.isdigit()):
        raise ValueError(f"its framing is {(coding or length)[:40]!r}")
    if coding:
        return ChunkReader()
    if status in {204, 304}:
        return PlainReader(0)
    return PlainReader(int(length) if length else None)
