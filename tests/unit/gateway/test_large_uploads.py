"""Uploads that go to the disk as they come do not count against the memory for bodies."""

from __future__ import annotations

from quart import request

from tests.fakes.raw_client import serving
from vllamad.gateway.server.connection import ServerLimits
from vllamad.gateway.server.quart_glue import GatewayApp

LIMITS = ServerLimits(bodies=3_000_000, drain=0.2)
SIZE = 12_000_000  # four times what all bodies together may take
HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
UPLOAD = HEAD % (b"/upload", SIZE)


class App(GatewayApp):
    """Counts an upload piece by piece, and any other body at once."""

    def __init__(self) -> None:
        super().__init__("tests", max_body=SIZE, streams_body="/upload".__eq__)
        self.add_url_rule("/upload", view_func=self.upload, methods=["POST"])
        self.add_url_rule("/count", view_func=self.count, methods=["POST"])

    async def upload(self) -> str:
        pieces = [len(piece) async for piece in request.body]
        return f"took {sum(pieces)}"

    async def count(self) -> str:
        return f"kept {len(await request.get_data())}"


async def test_an_upload_may_be_larger_than_all_bodies_together() -> None:
    async with serving(App(), LIMITS) as server, server.client() as client:
        await client.say(UPLOAD + b"x" * SIZE)
        await client.until(b"took %d" % SIZE)


async def test_what_follows_an_upload_on_its_connection_is_counted_again() -> None:
    async with serving(App(), LIMITS) as server, server.client() as client:
        await client.say(UPLOAD + b"x" * SIZE)
        await client.until(b"took %d" % SIZE)
        await client.say(HEAD % (b"/count", SIZE))
        await client.say(b"x" * (LIMITS.bodies + 1_000_000))
        await client.until(b"HTTP/1.1 503")
