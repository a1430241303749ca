"""The server on real loopback sockets: closing, limits, refusals, and its own end."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from quart import Response, request
from quart_trio.asgi import TrioASGIHTTPConnection

from tests.fakes.raw_client import RawClient, parse, serving
from vllamad.gateway.server.connection import ServerLimits
from vllamad.gateway.server.listen import TURNED_AWAY_AT_ONCE
from vllamad.gateway.server.quart_glue import GatewayApp, OwnBody, ResponseSink

HOST = b"host: x\r\n"
CLOSE = b"connection: close\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
POST_COUNT = b"POST /count HTTP/1.1\r\n" + HOST


class Slow(OwnBody):
    async def deliver(self, client: ResponseSink) -> None:
        await client.write(b"hello")
        await trio.sleep(0.2)


class App(GatewayApp):
    """A few routes, each there for one promise of the server."""

    def __init__(self, *, max_body: int = 1_000_000) -> None:
        super().__init__("tests", max_body=max_body)
        self.answered = 0
        self.left = trio.Event()  # a request was given up by its client
        self.waiting = trio.Event()
        self.hold = trio.Event()
        self.add_url_rule("/", view_func=self.hello, methods=["GET", "POST"])
        self.add_url_rule("/count", view_func=self.count, methods=["POST"])
        self.add_url_rule("/stream", view_func=self.stream)
        self.add_url_rule("/wait", view_func=self.wait)
        self.add_url_rule("/flood", view_func=self.flood)
        self.add_url_rule("/slow", view_func=self.slow)

    async def hello(self) -> str:
        self.answered += 1
        return "hello"

    async def count(self) -> str:
        return str(len(await request.get_data()))

    async def stream(self) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            yield b"one "
            await self.hold.wait()
            yield b"two"

        return Response(body())

    async def slow(self) -> Response:
        return Slow(headers={"content-length": "5"})

    async def wait(self) -> str:
        self.waiting.set()
        try:
            await self.hold.wait()
        except trio.Cancelled:
            self.left.set()
            raise
        return "waited"

    async def flood(self) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                self.left.set()

        return Response(body())


def get(path: bytes = b"/", headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET " + path + b" HTTP/" + version + b"\r\n" + HOST + headers + b"\r\n"


async def test_connection_close_closes() -> None:
    async with serving(App()) as server:
        status, headers, body = parse(await server.ask(get(headers=CLOSE), limit=1))
    assert (status, body) == (200, b"hello")
    assert headers["connection"] == "close"
    assert "server" not in headers


async def test_http_1_0_gets_an_unchunked_stream_and_a_close() -> None:
    app = App()
    app.hold.set()
    async with serving(app) as server:
        answer = await server.ask(get(b"/stream", version=b"1.0"), limit=1)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"one two"


async def test_a_connection_is_reused() -> None:
    async with serving(App()) as server, server.client() as client:
        for _ in range(3):
            client.forget()
            await client.say(get())
            await client.until(b"hello")


async def test_an_idle_connection_is_closed_after_a_request_too() -> None:
    async with (
        serving(App(), ServerLimits(keep_alive=0.3, drain=0.2)) as server,
        server.client() as fresh,
        server.client() as used,
    ):
        await used.say(get())
        await used.until(b"hello")
        await used.until_eof(limit=2)
        await fresh.until_eof(limit=2)


async def test_keep_alive_is_counted_from_the_last_answer() -> None:
    async with (
        serving(App(), ServerLimits(keep_alive=0.5, drain=0.2)) as server,
        server.client() as client,
    ):
        for _ in range(3):
            client.forget()
            await client.say(get())
            await client.until(b"hello")
            await trio.sleep(0.3)


async def test_a_head_must_be_complete_in_time() -> None:
    async with (
        serving(App(), ServerLimits(head=0.3, drain=0.2)) as server,
        server.client() as client,
    ):
        await client.say(b"GET / HT")
        with trio.move_on_after(0.15):
            await client.until_eof()
        await client.say(b"TP/1.1\r\n")  # a byte now and then does not buy time
        assert parse(await client.until_eof(limit=1))[0] == 408


async def test_a_body_must_go_on() -> None:
    async with (
        serving(App(), ServerLimits(body_gap=0.2, drain=0.2)) as server,
        server.client() as client,
    ):
        await client.say(POST_COUNT + b"content-length: 9\r\n\r\nabc")
        assert parse(await client.until_eof(limit=2))[0] == 408


async def test_a_body_that_is_too_large_is_refused_while_it_is_still_coming() -> None:
    async with serving(App()) as server, server.client() as client:
        await client.say(POST_COUNT + b"content-length: 5000000\r\n\r\n")
        await client.say(b"x" * 500_000)
        assert b"HTTP/1.1 413" in await client.until(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
         b"0\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n"
         b"0\r\n\r\n", 400),
        (POST + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde", 400),
        (b"POST / HTTP/1.0\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"transfer-encoding: gzip\r\n\r\n", 501),
        (POST_COUNT + b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"a: " + b"b" * 20_000 + b"\r\n\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get(headers=b"connection: upgrade\r\nupgrade: WebSocket\r\n"), 400),
        (get(headers=b"connection: upgrade\r\nupgrade: \xa0websocket\x85\r\n"), 400),
        (get(b"?"), 400),
        (get(b"*"), 400),
        (get(b"x:80"), 400),
        (get(b"http://["), 400),
        (get(b"http://other/"), 400),
        (get(b"http:///"), 400),
    ],
)  # fmt: skip
async def test_a_refused_message_gets_one_answer_and_the_end(
    said: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    async with serving(app) as server:
        answer = await server.ask(said + get(b"/count"))
        assert parse(answer)[0] == status
        assert answer.count(b"HTTP/1.1 ") == 1
    assert app.answered == 0
    assert not caplog.records, "strangers cannot fill the log"


@pytest.mark.parametrize("target", [b"http://x", b"HTTP://X/", b"https://x/?a=b"])
async def test_a_target_may_name_the_host_again(target: bytes) -> None:
    async with serving(App()) as server:
        assert parse(await server.ask(get(target, CLOSE)))[2] == b"hello"


async def test_a_head_without_end_is_refused_at_its_limit() -> None:
    async with serving(App()) as server:
        assert parse(await server.ask(b"GET / HTTP/1.1\r\na: " + b"b" * 20_000))[0] == 431


async def test_an_upgrade_to_http_2_is_ignored() -> None:
    async with serving(App()) as server:
        upgrade = (
            b"connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
        )
        assert parse(await server.ask(get(headers=upgrade)))[0] == 200


async def test_a_websocket_upgrade_with_bytes_behind_it_harms_nobody() -> None:
    async with serving(App()) as server:
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        for extra in (b"x", b"\x00\xff" * 50, get()):
            await server.ask(get(headers=upgrade) + extra)
        assert b"hello" in await server.get()


async def test_a_bug_on_one_connection_ends_that_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    async with serving(App()) as server, server.client() as other:
        async with server.client() as client:
            with monkeypatch.context() as broken:
                broken.setattr("vllamad.gateway.server.connection.refusal", lambda _: 1 / 0)
                await client.say(get())
                await client.until_dead()
        await other.say(get())
        await other.until(b"hello")


async def test_pipelined_requests_are_answered_in_turn() -> None:
    app = App()
    app.hold.set()
    async with serving(app) as server:
        answer = await server.ask(get() + get(b"/stream") + get(headers=CLOSE))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.index(b"hello") < answer.index(b"two") < answer.rindex(b"hello")


async def test_expect_100_continue_is_answered() -> None:
    async with serving(App()) as server, server.client() as client:
        head = POST_COUNT + CLOSE + b"content-length: 3\r\n"
        await client.say(head + b"expect: 100-continue\r\n\r\n")
        await client.until(b"HTTP/1.1 100")
        await client.say(b"abc")
        assert parse(await client.until_eof())[2] == b"3"


@pytest.mark.parametrize("behind", [b"", get(), b"garbage"])
async def test_a_client_that_leaves_is_noticed(behind: bytes) -> None:
    app = App()
    async with serving(app) as server:
        async with server.client() as client:
            await client.say(get(b"/wait") + behind)
            await app.waiting.wait()
        with trio.fail_after(20):
            await app.left.wait()


async def test_a_client_cannot_pile_up_bytes_ahead_of_its_turn() -> None:
    app = App()
    async with serving(app) as server, server.client() as client:
        await client.say(get(b"/wait"))
        with trio.fail_after(20):
            await say_until_refused(client, b"x" * 10_000)
            await app.left.wait()


async def test_a_body_that_nobody_wanted_is_dropped_and_the_connection_goes_on() -> None:
    async with serving(App()) as server, server.client() as client:
        await client.say(POST + b"content-length: 100000\r\n\r\n")
        await client.until(b"hello")
        client.forget()
        await client.say(b"x" * 100_000 + get())
        await client.until(b"hello")


async def test_a_body_that_nobody_wanted_and_that_dawdles_ends_the_connection() -> None:
    limits = ServerLimits(head=0.3, body_gap=60, drain=0.2)
    async with serving(App(), limits) as server, server.client() as client:
        await client.say(POST + b"content-length: 10\r\n\r\n")
        await client.until(b"hello")
        await client.until_eof(limit=2)


async def test_a_large_body_that_nobody_wanted_ends_the_connection() -> None:
    async with serving(App()) as server, server.client() as client:
        await client.say(POST + b"content-length: 10000000000\r\n\r\n")
        await client.until(b"hello")
        with trio.fail_after(20):
            await say_until_refused(client, b"x" * 10_000)


async def test_large_bodies_that_never_end_do_not_fill_the_memory() -> None:
    head = POST_COUNT + b"content-length: 2500000\r\n\r\n"
    limits = ServerLimits(bodies=3_000_000, drain=0.2)
    async with (
        serving(App(max_body=10_000_000), limits) as server,
        server.client() as first,
        server.client() as second,
    ):
        await first.say(head + b"x" * 1_900_000)
        await second.say(head)
        await say_until_refused(second, b"x" * 100_000)
        assert b"hello" in await server.get()
        await first.say(b"x" * 600_000)
        await first.until(b"2500000")


async def test_a_large_request_may_follow_before_we_are_done_with_the_last() -> None:
    async with serving(App()) as server, server.client() as client:
        await client.say(get(b"/slow"))
        await client.until(b"hello")  # the whole answer, though not yet the end of its task
        await client.say(POST_COUNT + b"content-length: 500000\r\n\r\n" + b"x" * 500_000)
        await client.until(b"500000")


async def say_until_refused(client: RawClient, data: bytes) -> None:
    try:
        while True:
            await client.say(data)
    except trio.BrokenResourceError:
        pass


async def test_too_many_connections_are_turned_away() -> None:
    app = App()
    async with serving(app, ServerLimits(connections=1, drain=0.2)) as server:
        async with server.client() as first:
            await first.say(get(b"/wait"))
            await app.waiting.wait()
            status, headers, _ = parse(await server.get())
            assert (status, headers["retry-after"]) == (503, "1")
        assert b"hello" in await retried(server.get)


async def test_a_flood_of_them_is_not_heard_out() -> None:
    app = App()
    async with (
        serving(app, ServerLimits(connections=1, drain=0.2)) as server,
        server.client() as first,
        AsyncExitStack() as flood,
    ):
        await first.say(get(b"/wait"))
        await app.waiting.wait()
        for _ in range(TURNED_AWAY_AT_ONCE):
            await flood.enter_async_context(server.client())
        async with server.client() as one_too_many:
            assert parse(await one_too_many.until_eof(limit=0.5))[0] == 503


async def test_whoever_asks_nothing_makes_way_for_a_newcomer() -> None:
    app = App()
    limits = ServerLimits(connections=3, silence=0, drain=0.2)
    async with (
        serving(app, limits) as server,
        server.client() as busy,
        server.client() as silent,
        server.client() as later,
    ):
        await busy.say(get(b"/wait"))
        await app.waiting.wait()
        await silent.say(b"GET / HT")
        await later.say(get())
        await later.until(b"hello")
        assert b"hello" in await server.get()
        await silent.until_dead()
        await later.say(get())
        await later.until(b"hello")
        app.hold.set()
        await busy.until(b"waited")


async def retried(get: Callable[[], Awaitable[bytes]]) -> bytes:
    """The place of a client that left is free a moment later."""
    with trio.fail_after(20):
        while b"hello" not in (answer := await get()):
            pass
    return answer


async def test_shutdown_lets_an_answer_end_and_accepts_nothing_more() -> None:
    app = App()
    async with (
        serving(app, ServerLimits(drain=5, last_request=0.1)) as server,
        server.client() as client,
    ):
        await client.say(get(b"/stream"))
        await client.until(b"one")
        server.shutdown.set()
        await refused(server.address)
        app.hold.set()
        assert parse(await client.until_eof())[2] == b"one two"
        with trio.fail_after(20):
            await server.ended.wait()


async def refused(address: tuple[str, int]) -> None:
    with trio.fail_after(20):
        while True:
            try:
                stream = await trio.open_tcp_stream(*address)
            except OSError:
                return
            await stream.aclose()


async def test_shutdown_closes_an_idle_connection_when_its_last_chance_is_over() -> None:
    limits = ServerLimits(drain=5, last_request=0.2)
    async with serving(App(), limits) as server, server.client() as client:
        await client.say(get())
        await client.until(b"hello")
        began = trio.current_time()
        server.shutdown.set()
        await client.until_eof()
        assert trio.current_time() - began >= 0.2
        with trio.fail_after(20):
            await server.ended.wait()


async def test_a_request_on_its_way_at_shutdown_is_answered_and_told_to_close() -> None:
    limits = ServerLimits(drain=5, last_request=3)
    async with serving(App(), limits) as server, server.client() as client:
        await client.say(get())
        await client.until(b"hello")
        client.forget()
        server.shutdown.set()
        await refused(server.address)
        await client.say(get())
        _, headers, body = parse(await client.until_eof())
        assert (headers["connection"], body) == ("close", b"hello")


async def test_an_answer_that_began_before_shutdown_may_be_followed_by_one_more_request() -> None:
    app = App()
    async with serving(app, ServerLimits(drain=5)) as server, server.client() as client:
        await client.say(get(b"/stream"))
        await client.until(b"one")
        server.shutdown.set()
        await refused(server.address)
        app.hold.set()
        await client.until(b"0\r\n\r\n")
        client.forget()
        await client.say(get())
        assert parse(await client.until_eof())[1]["connection"] == "close"


async def test_one_that_retires_waits_for_its_last_answer_whatever_the_limit() -> None:
    app = App()
    async with (
        serving(app, ServerLimits(drain=0.1, last_request=0.1)) as server,
        server.client() as client,
    ):
        await client.say(get(b"/stream"))
        await client.until(b"one")
        server.retire.set()
        await server.closed.wait()
        await refused(server.address)
        await trio.sleep(0.4)
        app.hold.set()
        await client.until(b"two")
        with trio.fail_after(20):
            await server.ended.wait()


async def test_one_that_has_retired_can_still_be_told_to_hurry() -> None:
    async with serving(App(), ServerLimits(drain=0.1)) as server, server.client() as client:
        await client.say(get(b"/stream"))
        await client.until(b"one")
        server.retire.set()
        await server.closed.wait()
        server.shutdown.set()
        with trio.fail_after(20):
            await server.ended.wait()


async def test_shutdown_has_an_end_although_a_client_does_not_read() -> None:
    app = App()
    async with serving(app, ServerLimits(drain=0.3)) as server, server.client() as client:
        await client.say(get(b"/flood"))
        await trio.sleep(0.1)
        server.shutdown.set()
        with trio.fail_after(1.5):
            await server.ended.wait()
    assert app.left.is_set()


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    app = App()
    async with serving(app, ServerLimits(write_stall=0.3)) as server, server.client() as client:
        await client.say(get(b"/flood"))
        with trio.fail_after(20):
            await app.left.wait()


async def test_many_finished_connections_do_not_stay() -> None:
    app = App()
    async with serving(app, ServerLimits(drain=60)) as server:
        for _ in range(30):
            async with server.client() as client:
                await client.say(get())
                await client.until(b"hello")
        server.shutdown.set()
        with trio.fail_after(20):  # before the drain limit: nobody was left to wait for
            await server.ended.wait()


def test_the_private_names_we_build_on_are_there() -> None:
    for name in (
        "_create_stream",
        "_send_h11_event",
        "_send_error_response",
        "_maybe_recycle",
        "_close_stream",
    ):
        assert inspect.iscoroutinefunction(getattr(H11Protocol, name)), name
    assert list(inspect.signature(TrioASGIHTTPConnection._send_response).parameters) == [
        "self",
        "send",
        "response",
    ]
    assert list(inspect.signature(TrioASGIHTTPConnection.handle_request).parameters) == [
        "self",
        "nursery",
        "request",
        "send",
    ]
    assert inspect.iscoroutinefunction(Lifespan.handle_lifespan)
