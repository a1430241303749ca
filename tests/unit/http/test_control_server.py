"""Promises of the control socket's HTTP server: what clients get, and that none can end it."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vllamad.errors import BadInput, ModelNotFound
from vllamad.host.control_socket import bind_control
from vllamad.http.control_server import (
    MAX_BODY,
    MAX_CONNECTIONS,
    READ_LIMIT,
    WRITE_LIMIT,
    ControlRequest,
    ControlResponse,
    Handler,
    Send,
    StreamResponse,
    serve_http,
)

GET = b"GET /v1/x HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def serving(folder: Path, handler: Handler) -> AsyncGenerator[str]:
    path = folder / "s"
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bind_control(path, "none")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_http, listener, handler)
        with trio.fail_after(300):  # of a mock clock, where there is one
            yield str(path)
        nursery.cancel_scope.cancel()


async def echo(request: ControlRequest) -> ControlResponse:
    return ControlResponse(body=repr((request.method, request.path, request.query)).encode())


async def read_all(stream: trio.SocketStream) -> bytes:
    got = b""
    try:
        while piece := await stream.receive_some():
            got += piece
    except trio.BrokenResourceError:  # it closed on what we had still to say
        pass
    return got


async def ask(path: str, *raw: bytes) -> bytes:
    """Everything the server says to these bytes, after which nothing more comes from us."""
    async with await trio.open_unix_socket(path) as stream:
        for piece in raw:
            await stream.send_all(piece)
        await stream.send_eof()
        return await read_all(stream)


async def still_serves(path: str) -> None:
    assert (await ask(path, GET)).startswith(b"HTTP/1.1 200")


async def test_a_request_arrives_decoded(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as path:
        raw = b"POST /v1/models/hf.co%2Fa%20b/load?follow=1&n= HTTP/1.1\r\nhost: x\r\n\r\n"
        answer = await ask(path, raw)
    assert answer.endswith(b"('POST', ('v1', 'models', 'hf.co/a b', 'load'), {'follow': '1'})")


async def test_the_body_and_the_peer_arrive(tmp_path: Path) -> None:
    async def handler(request: ControlRequest) -> ControlResponse:
        return ControlResponse(body=request.body + str(request.peer.pid).encode())

    async with serving(tmp_path, handler) as path:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
        answer = await ask(path, head, b"h", b"i")
    assert answer.endswith(f"hi{os.getpid()}".encode())


async def test_a_connection_is_kept_for_the_next_request(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as path:
        answer = await ask(path, GET, GET)
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_a_connection_is_closed_when_the_client_asks(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, echo) as path,
        await trio.open_unix_socket(path) as stream,
    ):
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b"connection: close" in (await read_all(stream)).lower()


async def test_head_gets_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as path:
        answer = await ask(path, GET.replace(b"GET", b"HEAD"))
    assert answer.endswith(b"\r\n\r\n")


async def test_a_stream_comes_in_pieces(tmp_path: Path) -> None:
    async def produce(send: Send) -> None:
        for piece in (b"one\n", b"", b"two\n"):
            await send(piece)

    async def handler(_: ControlRequest) -> StreamResponse:
        return StreamResponse(produce=produce)

    async with serving(tmp_path, handler) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        answer = await read_all(stream)
    assert b"application/x-ndjson" in answer
    assert answer.endswith(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")


async def test_a_stream_is_cancelled_when_its_peer_leaves(tmp_path: Path) -> None:
    began, ended = trio.Event(), trio.Event()

    async def produce(send: Send) -> None:
        await send(b"first")
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def handler(_: ControlRequest) -> StreamResponse:
        return StreamResponse(produce=produce)

    async with serving(tmp_path, handler) as path:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(GET)
            await began.wait()
        with trio.fail_after(5):
            await ended.wait()


async def test_a_refusal_is_told_with_kind_and_hint(tmp_path: Path) -> None:
    async def handler(_: ControlRequest) -> ControlResponse:
        raise ModelNotFound("model 'x' not found", hint="pull it")

    async with serving(tmp_path, handler) as path:
        answer = await ask(path, GET)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.endswith(
        b'{"error":{"kind":"model-not-found","message":"model \'x\' not found","hint":"pull it",'
        b'"status":404}}'
    )


async def test_a_bad_input_brings_its_own_status(tmp_path: Path) -> None:
    async def handler(_: ControlRequest) -> ControlResponse:
        raise BadInput("cannot do that", status=405)

    async with serving(tmp_path, handler) as path:
        assert (await ask(path, GET)).startswith(b"HTTP/1.1 405")


async def test_a_bug_in_the_handler_is_one_500(tmp_path: Path) -> None:
    async def handler(request: ControlRequest) -> ControlResponse:
        if request.path == ("bug",):
            raise ZeroDivisionError
        return ControlResponse()

    async with serving(tmp_path, handler) as path:
        answer = await ask(path, GET.replace(b"/v1/x", b"/bug"), GET)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"HTTP/1.1 200" in answer


async def test_a_bug_in_a_stream_ends_only_its_connection(tmp_path: Path) -> None:
    async def produce(send: Send) -> None:
        await send(b"first")
        raise ZeroDivisionError

    async def handler(request: ControlRequest) -> ControlResponse | StreamResponse:
        return StreamResponse(produce=produce) if request.path == ("bug",) else ControlResponse()

    async with serving(tmp_path, handler) as path:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(GET.replace(b"/v1/x", b"/bug"))
            answer = await read_all(stream)
        assert not answer.endswith(b"0\r\n\r\n")  # cut, so that nobody takes it for whole
        await still_serves(path)


@pytest.mark.parametrize("name", ["Origin", "Referer"])
async def test_a_browser_is_refused(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, echo) as path:
        raw = f"POST /v1/x HTTP/1.1\r\nhost: x\r\n{name}: null\r\ncontent-length: 9\r\n\r\n"
        answer = await ask(path, raw.encode())
    assert answer.startswith(b"HTTP/1.1 403")
    assert b'"kind":"not-allowed"' in answer


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x00\x01\x02 what\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 24_000 + b"\r\n\r\n", b"431"),
        (b"GET " + b"/a" * 10_000, b"431"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n" + b"b" * 1_100_000,
            b"413",
        ),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
        (b"GET /%ff HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /?" + b"a=1&" * 40 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"GET http://x/ HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", b"400"),
    ],
)
async def test_a_malformed_request_is_refused(tmp_path: Path, raw: bytes, status: bytes) -> None:
    async with serving(tmp_path, echo) as path:
        assert (await ask(path, raw)).startswith(b"HTTP/1.1 " + status)
        await still_serves(path)


async def test_the_largest_body_passes(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as path:
        raw = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % MAX_BODY
        assert (await ask(path, raw, b"b" * MAX_BODY)).startswith(b"HTTP/1.1 200")


async def test_noise_leaves_it_serving(tmp_path: Path) -> None:
    noise = random.Random(7)
    async with serving(tmp_path, echo) as path:
        for _ in range(30):
            await ask(path, noise.randbytes(noise.randrange(2_000)))
            cut = noise.randrange(len(GET))
            await ask(path, GET[:cut])
        await still_serves(path)


async def test_a_half_open_peer_is_dropped(tmp_path: Path, mock_clock: MockClock) -> None:
    async with serving(tmp_path, echo) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"GET /v1/x HTT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(passing, mock_clock, READ_LIMIT + 1)
            assert await read_all(stream) == b""
            nursery.cancel_scope.cancel()
        await still_serves(path)


async def test_a_peer_that_does_not_read_is_dropped(tmp_path: Path, mock_clock: MockClock) -> None:
    ended = trio.Event()

    async def produce(send: Send) -> None:
        try:
            while True:
                await send(b"x" * 65_536)
        finally:
            ended.set()

    async def handler(request: ControlRequest) -> ControlResponse | StreamResponse:
        return StreamResponse(produce=produce) if request.path == ("flood",) else ControlResponse()

    async with serving(tmp_path, handler) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(GET.replace(b"/v1/x", b"/flood"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(passing, mock_clock, WRITE_LIMIT + 1)
            await ended.wait()
            nursery.cancel_scope.cancel()
        await still_serves(path)


async def test_a_hundred_silent_peers_make_way(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as path:
        crowd = [await trio.open_unix_socket(path) for _ in range(100)]
        await still_serves(path)
        assert await read_all(crowd[0]) == b""  # the one silent longest had to go
        for stream in crowd:
            await stream.aclose()


async def test_when_all_are_busy_a_newcomer_is_told(tmp_path: Path) -> None:
    all_busy, go = trio.Event(), trio.Event()
    busy = itertools.count(1)

    async def handler(_: ControlRequest) -> ControlResponse:
        if next(busy) == MAX_CONNECTIONS:
            all_busy.set()
        await go.wait()
        return ControlResponse()

    async with serving(tmp_path, handler) as path:
        crowd = [await trio.open_unix_socket(path) for _ in range(MAX_CONNECTIONS)]
        for stream in crowd:
            await stream.send_all(GET)
        await all_busy.wait()
        assert (await ask(path)).startswith(b"HTTP/1.1 503")
        go.set()
        for stream in crowd:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await stream.aclose()


async def passing(clock: MockClock, step: float) -> None:
    """Let time go by in steps, each once everything under way has come to rest."""
    while True:
        await wait_all_tasks_blocked(0.02)
        clock.jump(step)
