"""What is held for an answer is held to its end, and no longer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from quart import Response

from tests.fakes.raw_client import parse, serving
from vllamad.gateway.server.quart_glue import GatewayApp, hold_until_response_sent

STREAM = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"


class App(GatewayApp):
    """Routes that hold something."""

    def __init__(self) -> None:
        super().__init__("tests", max_body=10)
        self.said: list[str] = []
        self.left = trio.Event()
        self.go_on = trio.Event()
        self.add_url_rule("/stream", view_func=self.stream)
        self.add_url_rule("/fail", view_func=self.fail)
        self.register_error_handler(ValueError, self.refused)

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[str]:
        self.said.append("entered")
        try:
            yield "thing"
        finally:
            self.said.append("left")
            self.left.set()

    async def stream(self) -> Response:
        assert await hold_until_response_sent(self.held()) == "thing"

        async def body() -> AsyncGenerator[bytes]:
            yield b"begun "
            await self.go_on.wait()
            self.said.append("streamed")
            yield b"ended"

        return Response(body())

    async def fail(self) -> Response:
        await hold_until_response_sent(self.held())
        raise ValueError("no")

    async def refused(self, error: ValueError) -> Response:
        return Response(str(error), status=400)


async def test_it_is_left_after_the_stream() -> None:
    app = App()
    async with serving(app) as server, server.client() as client:
        await client.say(STREAM)
        await client.until(b"begun")
        app.go_on.set()
        await client.until(b"ended")
        with trio.fail_after(20):
            await app.left.wait()
    assert app.said == ["entered", "streamed", "left"]


async def test_it_is_left_when_the_client_leaves() -> None:
    app = App()
    async with serving(app) as server:
        async with server.client() as client:
            await client.say(STREAM)
            await client.until(b"begun")
        with trio.fail_after(20):
            await app.left.wait()
    assert app.said == ["entered", "left"]


async def test_it_is_left_when_the_route_fails() -> None:
    app = App()
    async with serving(app) as server:
        assert parse(await server.get("/fail"))[::2] == (400, b"no")
    assert app.said == ["entered", "left"]


async def test_a_client_without_a_server_is_answered_too() -> None:
    app = App()
    app.go_on.set()
    answer = await app.test_client().get("/stream")
    assert await answer.get_data() == b"begun ended"
    assert app.said == ["entered", "streamed", "left"]


def test_no_answer_is_cut_for_its_length() -> None:
    assert App().config["RESPONSE_TIMEOUT"] is None
