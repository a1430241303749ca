"""A large body holds up nobody else: others are answered while it is read."""

from __future__ import annotations

import gzip
import threading

import pytest
import trio
from quart import Response

from tests.fakes.raw_client import parse, serving
from vllamad.gateway.routes.bodies import read
from vllamad.gateway.server.quart_glue import GatewayApp

LARGE = 2 << 20
PLAIN = b"content-length: %d\r\n\r\n%b"


class App(GatewayApp):
    """A route whose body takes as long to read as nobody asks another one."""

    def __init__(self) -> None:
        super().__init__("tests", max_body=LARGE)
        self.began = trio.Event()
        self.go_on = threading.Event()
        self.read_in: list[threading.Thread] = []
        self.token = trio.lowlevel.current_trio_token()
        self.add_url_rule("/large", view_func=self.large, methods=["POST"])
        self.add_url_rule("/small", view_func=self.small, methods=["POST"])
        self.add_url_rule("/other", view_func=self.other)

    def slowly(self, body: bytes) -> int:
        self.read_in.append(threading.current_thread())
        self.token.run_sync_soon(self.began.set)
        assert self.go_on.wait(30), "nobody else was answered meanwhile"
        return len(body)

    async def large(self) -> Response:
        return Response(str(await read(self.slowly)))

    async def small(self) -> Response:
        thread = await read(lambda _: threading.current_thread())
        return Response(str(thread is threading.main_thread()))

    async def other(self) -> Response:
        self.go_on.set()
        return Response("other")


@pytest.mark.parametrize("header", [b"", b"content-encoding: gzip\r\n"])
async def test_another_request_is_answered_while_a_large_body_is_read(header: bytes) -> None:
    app = App()
    body = gzip.compress(bytes(LARGE)) if header else bytes(LARGE)
    async with serving(app) as server, server.client() as client:
        await client.say(
            b"POST /large HTTP/1.1\r\nhost: x\r\n" + header + PLAIN % (len(body), body)
        )
        with trio.fail_after(30):
            await app.began.wait()
            assert parse(await server.get("/other"))[2] == b"other"
        await client.until(b"\r\n\r\n%d" % LARGE)
    assert app.read_in != [threading.main_thread()]


async def test_a_small_body_is_read_where_it_is() -> None:
    async with serving(App()) as server, server.client() as client:
        await client.say(b"POST /small HTTP/1.1\r\nhost: x\r\n" + PLAIN % (2, b"{}"))
        await client.until(b"True")
