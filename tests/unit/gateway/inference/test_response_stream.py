"""The relay between a scripted engine and a raw client, both on real sockets."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from quart import Response

from tests.fakes.raw_client import Server, parse, serving
from tests.fakes.raw_engine import CHUNKED_HEAD, Exchange, Script, raw_engine
from vllamad.errors import VllamadError
from vllamad.gateway.inference.response_stream import (
    OllamaStreamEncoder,
    read_whole,
    send_request,
    stream_response,
)
from vllamad.gateway.inference.token_pump import TokenPump, open_hub
from vllamad.gateway.inference.upstream import RelayLimits, ResponseTranslator
from vllamad.gateway.server.connection import ServerLimits
from vllamad.gateway.server.quart_glue import GatewayApp
from vllamad.translate.ollama.encode import CHAT
from vllamad.translate.ollama.stream import Reply
from vllamad.translate.openai.passthrough import OpenAIPassthrough

SSE = "text/event-stream"
POST = b"POST /stream HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
CLOSING = POST.replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")
DONE = b"data: [DONE]\n\n"


class App(GatewayApp):
    """Two routes over the relay, and a lease the test can revoke."""

    def __init__(self, socket: Path, hub: TokenPump | None, limits: RelayLimits) -> None:
        super().__init__("tests", hub=hub, max_body=1000)
        self.socket = str(socket)
        self.limits = limits
        self.reason = ""
        self.gone = trio.Event()
        self.make_output = lambda: OpenAIPassthrough(
            stream=True, served_name="m", requested_name="m"
        )
        self.add_url_rule("/stream", view_func=self.stream, methods=["POST"])
        self.add_url_rule("/collect", view_func=self.read_whole, methods=["POST"])
        self.register_error_handler(VllamadError, self.refused)

    def revoke(self, reason: str) -> None:
        self.reason = reason
        self.gone.set()

    async def revoked(self) -> str:
        await self.gone.wait()
        return self.reason

    async def send_request(self, output: ResponseTranslator):
        path = "/v1/chat/completions"
        return await send_request(
            self.socket, path, b"{}", output, revoked=self.revoked, limits=self.limits
        )

    async def stream(self) -> Response:
        return await stream_response(await self.send_request(self.make_output()), SSE)

    async def read_whole(self) -> Response:
        output = OpenAIPassthrough(stream=False, served_name="m", requested_name="m")
        return Response(await read_whole(await self.send_request(output)))

    async def refused(self, error: VllamadError) -> Response:
        return Response(error.message, status=error.status)


@asynccontextmanager
async def relaying(
    path: Path,
    script: Script,
    *,
    by_hub: bool = True,
    limits: RelayLimits | None = None,
    server_limits: ServerLimits | None = None,
) -> AsyncGenerator[tuple[Server, App, list[Exchange]]]:
    socket = path / "engine"
    async with raw_engine(socket, script) as exchanges, open_hub() as hub:
        app = App(socket, hub if by_hub else None, limits or RelayLimits(reason=0.02))
        async with serving(app, server_limits) as server:
            yield server, app, exchanges


def saying(*events: bytes, head: bytes = CHUNKED_HEAD) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.say(head)
        for event in events:
            await exchange.event(event)
        await exchange.last_chunk()

    return script


def then_silent(*events: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        for event in events:
            await exchange.event(event)
        await exchange.until_gone()

    return script


def then_dead(*events: bytes, words: bytes = b"") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        for event in events:
            await exchange.event(event)
        if events:
            await trio.testing.wait_all_tasks_blocked(0.01)  # the events are on their way
        await exchange.say(words)

    return script


both_ways = pytest.mark.parametrize("by_hub", [True, False], ids=["hub", "plain"])


@pytest.mark.parametrize(
    ("by_hub", "version"), [(True, b"1.1"), (False, b"1.1"), (True, b"1.0"), (False, b"1.0")]
)
async def test_every_way_passes_the_same_bytes(
    tmp_path: Path, by_hub: bool, version: bytes
) -> None:
    events = [b'{"n":%d,"text":"%b"}' % (n, b"\xc3\xa9" * n * n) for n in range(60)]
    async with relaying(tmp_path, saying(*events, b"[DONE]"), by_hub=by_hub) as (server, _, _):
        answer = await server.ask(CLOSING.replace(b"HTTP/1.1", b"HTTP/" + version))
    status, headers, body = parse(answer)
    assert status == 200
    assert headers["content-type"] == SSE
    assert ("transfer-encoding" in headers) == (version == b"1.1")
    assert body == b"".join(b"data: %b\n\n" % event for event in events) + DONE


@both_ways
async def test_what_came_with_the_head_is_passed_on(tmp_path: Path, by_hub: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD + b"8\r\ndata: a\n\r\n")
        await exchange.chunk(b"\ndata: b\n")
        await exchange.chunk(b"\n" + DONE)
        await exchange.last_chunk()

    async with relaying(tmp_path, script, by_hub=by_hub) as (server, _, _):
        assert parse(await server.ask(CLOSING))[2] == b"data: a\n\ndata: b\n\n" + DONE


async def test_an_answer_begins_only_once_there_is_something_to_say(tmp_path: Path) -> None:
    told, go_on = trio.Event(), trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD + b"6\r\ndata: \r\n")
        told.set()
        await go_on.wait()
        await exchange.chunk(b"a\n\n" + DONE)

    async with relaying(tmp_path, script) as (server, _, _), server.client() as client:
        await client.say(POST)
        await told.wait()
        with trio.move_on_after(0.1):
            await client.until(b"HTTP")
        assert client.seen == b""
        go_on.set()
        await client.until(DONE)


@both_ways
async def test_a_connection_is_reused_after_a_stream(tmp_path: Path, by_hub: bool) -> None:
    script = saying(b"a", b"b", b"[DONE]")
    async with (
        relaying(tmp_path, script, by_hub=by_hub) as (server, _, exchanges),
        server.client() as client,
    ):
        for _ in range(5):
            client.forget()
            await client.say(POST)
            assert parse(await client.until(b"0\r\n\r\n"))[2] == b"data: a\n\ndata: b\n\n" + DONE
    assert len(exchanges) == 5


@pytest.mark.parametrize(("said", "status"), [(400, 400), (500, 500), (404, 500), (503, 503)])
async def test_a_refusal_of_the_engine_is_a_refusal_of_ours(
    tmp_path: Path, said: int, status: int
) -> None:
    async def script(exchange: Exchange) -> None:
        body = b'{"error":{"message":"too much","code":%d}}' % said
        await exchange.say(
            b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (said, len(body)) + body
        )

    async with relaying(tmp_path, script) as (server, _, _):
        assert parse(await server.ask(CLOSING))[0] == status


@pytest.mark.parametrize("route", [b"/stream", b"/collect"])
@pytest.mark.parametrize(
    "script", [then_dead(), then_dead(words=b"zz\r\n"), then_dead(words=b"5\r\ndata"), saying()]
)
async def test_what_goes_wrong_before_the_first_line_has_a_status(
    tmp_path: Path, route: bytes, script: Script
) -> None:
    async with relaying(tmp_path, script) as (server, _, _):
        request = CLOSING.replace(b"/stream", route)
        answer = await server.ask(request)
    assert parse(answer)[0] == 500 or (route == b"/collect" and parse(answer)[2] == b"")


@both_ways
@pytest.mark.parametrize(
    "script",
    [
        then_dead(b"a"),
        then_dead(b"a", words=b"zz\r\n"),
        then_dead(b"a", words=b"7\r\ndata: b"),
        saying(b"a"),
    ],
    ids=["cut", "bad framing", "cut in an event", "no DONE"],
)
async def test_an_engine_that_breaks_off_ends_the_stream_with_one_error(
    tmp_path: Path, by_hub: bool, script: Script
) -> None:
    async with relaying(tmp_path, script, by_hub=by_hub) as (server, _, _):
        status, _, body = parse(await server.ask(CLOSING))
    assert status == 200
    assert body.startswith(b'data: a\n\ndata: {"error":{"message":"')
    assert body.count(b"data: ") == 2
    assert body.endswith(b"}\n\n")


@both_ways
async def test_a_revoked_lease_ends_the_stream_at_once(tmp_path: Path, by_hub: bool) -> None:
    async with (
        relaying(tmp_path, then_silent(b"a"), by_hub=by_hub) as (server, app, exchanges),
        server.client() as client,
    ):
        await client.say(CLOSING)
        await client.until(b"data: a")
        app.revoke("out of memory")
        body = parse(await client.until_eof())[2]
        with trio.fail_after(20):
            await exchanges[0].gone.wait()
    assert b'{"error":{"message":"out of memory"' in body
    assert body.count(b"error") == 2  # the key, and its type
    assert DONE not in body


@pytest.mark.parametrize("route", [b"/stream", b"/collect"])
@pytest.mark.parametrize("script", [then_silent()])
async def test_a_lease_revoked_before_the_first_line_is_a_refusal(
    tmp_path: Path, route: bytes, script: Script
) -> None:
    async with relaying(tmp_path, script) as (server, app, exchanges), server.client() as client:
        await client.say(CLOSING.replace(b"/stream", route))
        with trio.fail_after(20):
            while not exchanges:
                await trio.testing.wait_all_tasks_blocked(0.01)
        app.revoke("it crashed")
        status, _, body = parse(await client.until_eof())
    assert (status, body) == (500, b"it crashed")


async def test_a_lease_revoked_while_the_engine_thinks_is_a_refusal(tmp_path: Path) -> None:
    heard = trio.Event()

    async def script(exchange: Exchange) -> None:
        heard.set()
        await exchange.until_gone()

    async with relaying(tmp_path, script) as (server, app, exchanges), server.client() as client:
        await client.say(CLOSING)
        await heard.wait()
        app.revoke("it crashed")
        assert parse(await client.until_eof())[0] == 500
        with trio.fail_after(20):
            await exchanges[0].gone.wait()


@both_ways
async def test_the_reason_is_told_although_it_comes_after_the_end(
    tmp_path: Path, by_hub: bool
) -> None:
    dead = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        await exchange.event(b"a")
        await exchange.stream.aclose()
        dead.set()

    async with (
        relaying(tmp_path, script, by_hub=by_hub, limits=RelayLimits(reason=5)) as (server, app, _),
        server.client() as client,
    ):
        await client.say(CLOSING)
        await client.until(b"data: a")
        await dead.wait()
        app.revoke("CUDA error")
        assert b"CUDA error" in await client.until_eof()


async def test_an_engine_that_never_begins_is_given_up(tmp_path: Path) -> None:
    limits = RelayLimits(first=0.2)
    async with relaying(tmp_path, then_silent(), limits=limits) as (server, _, exchanges):
        assert parse(await server.ask(CLOSING))[0] == 500
        with trio.fail_after(20):
            await exchanges[0].gone.wait()


@both_ways
async def test_an_engine_that_stalls_is_given_up(tmp_path: Path, by_hub: bool) -> None:
    script, limits = then_silent(b"a", b"b"), RelayLimits(gap=0.2)
    async with relaying(tmp_path, script, by_hub=by_hub, limits=limits) as (server, _, exchanges):
        body = parse(await server.ask(CLOSING))[2]
        with trio.fail_after(20):
            await exchanges[0].gone.wait()
    assert body.startswith(b"data: a\n\ndata: b\n\n")
    assert b"the model has stopped answering" in body


@both_ways
@pytest.mark.parametrize("events", [(), (b"a",)], ids=["before the first", "in the middle"])
async def test_a_client_that_leaves_ends_the_request_at_the_engine(
    tmp_path: Path, by_hub: bool, events: tuple[bytes, ...]
) -> None:
    script = then_silent(*events)
    async with relaying(tmp_path, script, by_hub=by_hub) as (server, _, exchanges):
        async with server.client() as client:
            await client.say(POST + POST)
            with trio.fail_after(20):
                while not exchanges:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            if events:
                await client.until(b"data: a")
        with trio.fail_after(20):
            await exchanges[0].gone.wait()


class Flood:
    """An engine that says a great deal, and knows how much it could get rid of."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.said = 0
        self.over = trio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        try:
            await exchange.say(CHUNKED_HEAD)
            for n in range(self.total):
                await exchange.event(b"%08d" % n + b"x" * 1000)
                self.said = n + 1
            await exchange.event(b"[DONE]")
            await exchange.last_chunk()
        finally:
            self.over.set()


@pytest.mark.integration
@both_ways
async def test_a_slow_client_slows_the_engine_down_and_loses_nothing(
    tmp_path: Path, by_hub: bool
) -> None:
    flood = Flood(10_000)
    async with (
        relaying(tmp_path, flood, by_hub=by_hub) as (server, _, _),
        server.client() as client,
    ):
        await client.say(CLOSING)
        await client.until(b"data: ")
        before = -1
        while flood.said > before:
            before = flood.said
            await trio.sleep(0.1)
        assert flood.said < flood.total / 2  # what the sockets on the way hold, no more
        body = parse(await client.until_eof(limit=20))[2]
    assert [int(event[6:14]) for event in body.split(b"\n\n")[:-2]] == list(range(flood.total))


@both_ways
async def test_a_client_that_never_reads_is_given_up(tmp_path: Path, by_hub: bool) -> None:
    flood = Flood(1_000_000)
    limits = RelayLimits(write_stall=0.3)
    server_limits = ServerLimits(write_stall=0.3, drain=0.2)
    async with (
        relaying(tmp_path, flood, by_hub=by_hub, limits=limits, server_limits=server_limits) as (
            server,
            _,
            _,
        ),
        server.client() as client,
    ):
        await client.say(POST)
        with trio.fail_after(20):
            await flood.over.wait()


@both_ways
async def test_shutdown_does_not_wait_for_a_client_that_never_reads(
    tmp_path: Path, by_hub: bool
) -> None:
    async with (
        relaying(tmp_path, Flood(1_000_000), by_hub=by_hub) as (server, _, _),
        server.client() as client,
    ):
        await client.say(POST)
        await client.until(b"data: ")
        server.shutdown.set()
        with trio.fail_after(1.5):
            await server.ended.wait()


async def test_a_whole_answer_is_collected(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n" + b'{"model":"m",')
        await exchange.say(b'"a":12}')

    async with relaying(tmp_path, script) as (server, _, _):
        answer = parse(await server.ask(CLOSING.replace(b"/stream", b"/collect")))
    assert answer[0] == 200
    assert answer[2] == b'{"model":"m","a":12}'


class Buggy(OpenAIPassthrough):
    def feed(self, data: bytes, now_ns: int) -> bytes:
        if b"trip" in data:
            raise ZeroDivisionError
        return super().feed(data, now_ns)


@both_ways
async def test_a_bug_in_the_translation_ends_one_answer_and_no_other(
    tmp_path: Path, by_hub: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    trip = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        await exchange.event(b"a")
        await trip.wait()
        first = len(exchanges) == 2 and exchange is exchanges[0]
        await exchange.event(b"trip" if first else b"b")
        await exchange.event(b"[DONE]")

    async with relaying(tmp_path, script, by_hub=by_hub) as (server, app, exchanges):
        app.make_output = lambda: Buggy(stream=True, served_name="m", requested_name="m")
        async with server.client() as bad, server.client() as good:
            for client in (bad, good):
                await client.say(CLOSING)
                await client.until(b"data: a")
            trip.set()
            assert b'data: {"error"' in parse(await bad.until_eof())[2]
            assert parse(await good.until_eof())[2].endswith(b"data: b\n\n" + DONE)


def chat_lines() -> ResponseTranslator:
    return OllamaStreamEncoder(Reply(CHAT, "tiny"), received_ns=1, granted_ns=2)


@both_ways
async def test_an_ollama_stream_ends_in_one_done_line(tmp_path: Path, by_hub: bool) -> None:
    def event(delta: bytes, reason: bytes = b"null") -> bytes:
        return b'{"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]}' % (delta, reason)

    script = saying(
        event(b'"role":"assistant","content":""'),
        event(b'"content":"Par"'),
        event(b'"content":"is"'),
        event(b'"content":""', b'"stop"'),
        b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
        b"[DONE]",
    )
    async with relaying(tmp_path, script, by_hub=by_hub) as (server, app, _):
        app.make_output = chat_lines  # type: ignore[assignment]
        body = parse(await server.ask(CLOSING))[2]
    lines = body.splitlines()
    assert [b'"done":true' in line for line in lines] == [False, False, True]
    assert b'"content":"Par"' in lines[0]
    assert b'"eval_count":2' in lines[2]


@pytest.mark.integration
async def test_many_streams_at_once_do_not_mix(tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        for n in range(30):
            await exchange.event(b"%d of %d" % (n, id(exchange)))
            await trio.lowlevel.checkpoint()
        await exchange.event(b"[DONE]")
        await exchange.last_chunk()

    bodies: list[bytes] = []

    async def one(server: Server) -> None:
        bodies.append(parse(await server.ask(CLOSING, limit=10))[2])

    async with (
        relaying(tmp_path, script) as (server, _, exchanges),
        trio.open_nursery() as nursery,
    ):
        for _ in range(100):
            nursery.start_soon(one, server)
    expected = {
        b"".join(b"data: %d of %d\n\n" % (n, id(exchange)) for n in range(30)) + DONE
        for exchange in exchanges
    }
    assert set(bodies) == expected
