"""From an engine's answer to a client's: what the routes of generation call.

It must not know models, prompts or spellings: what is made of the bytes is the output's business.
An answer begins only once there is something to say, so what goes wrong before is still a refusal
with a status; what goes wrong later is the answer's last line. Each ends in exactly one way.
"""

from __future__ import annotations

import time
from typing import Final

from vllamad.errors import VllamadError
from vllamad.gateway.inference.token_pump import PumpedStream
from vllamad.gateway.inference.upstream import (
    RelayLimits,
    ResponseTranslator,
    Revoked,
    UpstreamResponse,
    exchange,
)
from vllamad.gateway.server.quart_glue import OwnBody, ResponseSink, hold_until_response_sent
from vllamad.http.engine_client import JSON
from vllamad.translate.engine.sse import EventReader
from vllamad.translate.ollama.stream import Reply, Times

_DEFAULTS: Final = RelayLimits()


async def send_request(
    endpoint: str,
    path: str,
    body: bytes,
    output: ResponseTranslator,
    *,
    revoked: Revoked,
    limits: RelayLimits = _DEFAULTS,
    content_type: str = JSON,
) -> UpstreamResponse:
    """Post to the engine at the Unix socket `endpoint`; its answer, once it has a head.

    The connection lives as long as our own answer. Raises EngineRefused for a refusal of the
    engine's, WorkerLost when it is gone or silent.
    """
    asked = await hold_until_response_sent(exchange(output, revoked, limits))
    await asked.ask(endpoint, path, body, content_type)
    return asked


async def stream_response(asked: UpstreamResponse, content_type: str) -> OwnBody:
    """The streamed answer, once its first line exists. Raises what goes wrong before that."""
    first = b""
    while not first and not asked.over:
        first = await asked.more()
    first = first or await asked.last_words()
    if asked.output.failed is not None and not first:
        raise asked.output.failed
    return Relayed(asked, first, content_type)


async def read_whole(asked: UpstreamResponse) -> bytes:
    """The whole answer at once. Raises the error that ends it."""
    pieces: list[bytes] = []
    while not asked.over:
        pieces.append(await asked.more())
    pieces.append(await asked.last_words())
    if asked.output.failed is not None:
        raise asked.output.failed
    return b"".join(pieces)


class Relayed(OwnBody):
    """An answer that has begun: by the hub where the client allows it, else by the server."""

    def __init__(self, asked: UpstreamResponse, first: bytes, content_type: str) -> None:
        super().__init__(content_type=content_type)  # pyright: ignore[reportUnknownMemberType]
        self._asked = asked
        self._first = first

    async def deliver(self, client: ResponseSink) -> None:
        await client.write(self._first)
        if client.direct is not None:
            stream, hub = client.direct
            await PumpedStream(self._asked, stream).run(hub)
        while not self._asked.over:
            if out := await self._asked.more():
                await client.write(out)
        if last := await self._asked.last_words():
            await client.write(last)


class OllamaStreamEncoder:
    """The engine's events made Ollama's lines, with the times that the last one tells."""

    def __init__(self, reply: Reply, *, received_ns: int, granted_ns: int) -> None:
        """Monotonic nanoseconds: when the request was here, and when its worker was."""
        self._reply = reply
        self._events = EventReader()
        self._received_ns = received_ns
        self._granted_ns = granted_ns
        self._first_ns = 0
        self._last_ns = 0

    @property
    def failed(self) -> VllamadError | None:
        return self._reply.failed

    @property
    def started(self) -> bool:
        return self._reply.started

    @property
    def complete(self) -> bool:
        return self._reply.complete

    def feed(self, data: bytes, now_ns: int) -> bytes:
        self._last_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or self._last_ns
        return self._reply.feed(self._events.feed(data), now_ns)

    def finish(self, now_ns: int) -> bytes:
        times = Times(
            received=self._received_ns,
            granted=self._granted_ns,
            first_token=self._first_ns,
            last_token=self._last_ns,
            ended=time.monotonic_ns(),
        )
        return self._reply.finish(now_ns, times)

    def fail(self, error: VllamadError) -> bytes:
        return self._reply.fail(error)
