"""The hub by itself: sockets in, chunks out, and nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable

import pytest
import trio

from vllamad.errors import VllamadError
from vllamad.gateway.inference.token_pump import PumpedStream, TokenPump, chunk, open_hub
from vllamad.gateway.inference.upstream import RelayLimits, UpstreamResponse
from vllamad.http.chunked import PlainReader
from vllamad.http.engine_client import EngineResponse


class Echo:
    """Passes everything on; a Z ends it."""

    def __init__(self) -> None:
        self.failed: VllamadError | None = None
        self.started = False
        self.complete = False

    def feed(self, data: bytes, now_ns: int) -> bytes:
        self.started = True
        self.complete = data.endswith(b"Z")
        return data

    def finish(self, now_ns: int) -> bytes:
        return b"" if self.complete else self.fail(VllamadError("unfinished"))

    def fail(self, error: VllamadError) -> bytes:
        self.failed = error
        return b"!" + error.message.encode()


class Stream:
    """An engine's socket, a client's socket, and the pump between them."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.engine, ours = socket.socketpair()
        ours.setblocking(False)
        self.engine.setblocking(False)
        theirs, client = socket.socketpair()
        theirs.setblocking(False)
        self.client = client
        self.client.setblocking(False)
        self.to_client = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        self.exchange = UpstreamResponse(Echo(), limits or RelayLimits())
        self.exchange.begin(
            EngineResponse(status=200, sock=ours, early=b"", reader=PlainReader(None))
        )
        self.pump = PumpedStream(self.exchange, self.to_client)

    async def until(self, size: int) -> bytes:
        data = b""
        with trio.fail_after(5):
            while len(data) < size:
                await trio.lowlevel.wait_readable(self.client)
                data += self.client.recv(size - len(data))
        return data

    def close(self) -> None:
        for sock in (self.engine, self.client, self.exchange.sock, self.to_client.socket):
            sock.close()


Streams = Callable[..., Stream]


@pytest.fixture
async def streams() -> AsyncGenerator[Streams]:
    made: list[Stream] = []

    def make(limits: RelayLimits | None = None) -> Stream:
        made.append(Stream(limits))
        return made[-1]

    yield make
    for stream in made:
        stream.close()


async def run(stream: Stream, hub: TokenPump) -> None:
    with trio.fail_after(5):
        await stream.pump.run(hub)


def test_no_data_is_no_chunk() -> None:
    assert chunk(b"") == b""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


async def test_each_read_becomes_one_chunk(streams: Streams) -> None:
    stream = streams()
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(run, stream, hub)
        stream.engine.send(b"ab")
        assert await stream.until(7) == b"2\r\nab\r\n"
        stream.engine.send(b"c")
        stream.engine.send(b"Z")
        with trio.fail_after(5):
            while not stream.exchange.over:
                await trio.lowlevel.checkpoint()


async def test_what_the_client_could_not_take_follows_when_it_can(streams: Streams) -> None:
    stream = streams()
    sent = 0
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(run, stream, hub)
        while True:  # until both sockets on the way are full
            await trio.testing.wait_all_tasks_blocked(0.01)
            try:
                sent += stream.engine.send(b"x" * 10_000)
            except BlockingIOError:
                break
        received = 0
        while received < sent:
            size = int((await line(stream)), 16)
            assert await stream.until(size + 2) == b"x" * size + b"\r\n"
            received += size
        stream.engine.send(b"Z")
    assert sent > 100_000


async def line(stream: Stream) -> bytes:
    data = b""
    while not data.endswith(b"\r\n"):
        data += await stream.until(1)
    return data


async def test_a_client_that_takes_nothing_is_given_up(streams: Streams) -> None:
    stream = streams(RelayLimits(write_stall=0.05))
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(fill, stream)
        with pytest.raises(trio.BrokenResourceError):
            await run(stream, hub)
        nursery.cancel_scope.cancel()
    assert stream.to_client.socket.fileno() == -1


async def fill(stream: Stream) -> None:
    while True:
        await trio.lowlevel.wait_writable(stream.engine)
        stream.engine.send(b"x" * 10_000)


async def test_a_client_that_left_ends_the_pump(streams: Streams) -> None:
    stream = streams()
    stream.client.close()
    stream.engine.send(b"x")
    async with open_hub() as hub:
        with pytest.raises(trio.BrokenResourceError):
            await run(stream, hub)


async def test_a_closed_client_never_means_another_socket_with_its_number(streams: Streams) -> None:
    stream = streams()
    number = stream.to_client.socket.fileno()
    stream.to_client.socket.close()
    pair = socket.socketpair()  # takes the lowest free numbers
    stranger, other = pair if pair[0].fileno() == number else pair[::-1]
    assert stranger.fileno() == number
    other.setblocking(False)
    with stranger, other:
        stream.engine.send(b"secret")
        async with open_hub() as hub:
            with pytest.raises(trio.BrokenResourceError):
                await run(stream, hub)
        with pytest.raises(BlockingIOError):
            other.recv(10)


async def test_an_engine_that_stalls_ends_the_stream_with_an_error(streams: Streams) -> None:
    stream = streams(RelayLimits(first=0.05))
    async with open_hub() as hub:
        await run(stream, hub)
    assert b"!the model has stopped answering" in stream.client.recv(1000)


async def test_a_stream_that_is_given_up_is_forgotten(streams: Streams) -> None:
    stream = streams()
    async with open_hub() as hub:
        with trio.move_on_after(0.02):
            await stream.pump.run(hub)
        stream.engine.send(b"x")
        await trio.testing.wait_all_tasks_blocked(0.02)  # a forgotten socket that still rang would
        assert stream.exchange.sock.recv(10) == b"x"  # have been read, or have stopped the hub
