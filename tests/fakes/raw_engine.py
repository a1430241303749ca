"""A Unix socket that answers with exactly the bytes a test wants, when it wants them.

For tests of our side of the wire. The scripted engine with a life of its own is `engine.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
CHUNKED_HEAD = HEAD + b"transfer-encoding: chunked\r\n\r\n"

Script = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One connection as the engine sees it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.request = b""
        self.gone = trio.Event()  # the other side has closed

    async def hear(self) -> None:
        """Read the whole request (its head, and a body by Content-Length)."""
        while b"\r\n\r\n" not in self.request:
            self.request += await self.stream.receive_some()
        head, _, body = self.request.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += await self.stream.receive_some()
        self.request = head + b"\r\n\r\n" + body

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def chunk(self, data: bytes) -> None:
        await self.say(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: bytes) -> None:
        await self.chunk(b"data: " + data + b"\n\n")

    async def last_chunk(self) -> None:
        await self.say(b"0\r\n\r\n")

    async def until_gone(self) -> None:
        """Return once the other side has closed its connection."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        self.gone.set()


@asynccontextmanager
async def raw_engine(path: Path, script: Script) -> AsyncGenerator[list[Exchange]]:
    """Run `script` for each connection to `path`; yields the exchanges in their order."""
    exchanges: list[Exchange] = []

    async def answer(stream: trio.SocketStream) -> None:
        exchange = Exchange(stream)
        exchanges.append(exchange)
        try:
            async with stream:
                await exchange.hear()
                await script(exchange)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            exchange.gone.set()

    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(4096)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(sock)])
        yield exchanges
        nursery.cancel_scope.cancel()


ONE_TOKEN = (200, b'{"choices":[{"text":" yes"}]}')
MODELS = (200, b'{"object":"list","data":[{"id":"a","max_model_len":4096},{"id":"lora"}]}')
Answers = Mapping[str, tuple[int, bytes] | None]


def path_of(exchange: Exchange) -> str:
    return exchange.request.split(b" ")[1].decode()


async def send_answer(exchange: Exchange, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    await exchange.say(head.encode() + body)


def engine_answering(answers: Answers) -> Script:
    """Answers by path; None is a connection that ends without one."""
    all_answers: Answers = {
        "/health": (200, b""),
        "/v1/completions": ONE_TOKEN,
        "/pooling": (200, b"{}"),
        "/v1/models": MODELS,
        **answers,
    }

    async def script(exchange: Exchange) -> None:
        if (said := all_answers[path_of(exchange)]) is not None:
            await send_answer(exchange, *said)

    return script
