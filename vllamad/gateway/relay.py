"""From an engine's answer to a client's: what the routes of generation call.

It must not know models, prompts or spellings: what is made of the bytes is the output's business.
An answer begins only once there is something to say, so what goes wrong before is still a refusal
with a status; what goes wrong later is the answer's last line. Each ends in exactly one way.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Final, NoReturn

import httpx
import trio

from vllamad.errors import VllamadError
from vllamad.gateway.exchange import Exchange, Output, RelayLimits, exchange, lost, silent
from vllamad.gateway.hub import Pump
from vllamad.gateway.quart_app import Client, OwnBody, until_answered
from vllamad.host.tasks import first_of
from vllamad.wire.refusals import engine_refusal
from vllamad.wire.replies import Reply, Times
from vllamad.wire.sse import EventReader

REFUSAL_LIMIT: Final = 64 * 1024  # bytes read of an engine's refusal

_DEFAULTS: Final = RelayLimits()

Revoked = Callable[[], Awaitable[str]]  # returns, with the reason, once the worker is gone


async def ask(
    engine: httpx.AsyncClient,
    endpoint: str,
    path: str,
    body: bytes,
    *,
    revoked: Revoked,
    limits: RelayLimits = _DEFAULTS,
) -> httpx.Response:
    """Post JSON to the engine at the Unix socket `endpoint`; its answer, once it has a head.

    The connection lives as long as our own answer. Raises EngineRefused for a refusal of the
    engine's, WorkerLost when it is gone or silent.
    """
    request = engine.build_request(
        "POST",
        path,
        content=body,
        headers={"content-type": "application/json", "connection": "close"},
        extensions={"uds": endpoint},
    )
    with trio.move_on_after(limits.first):
        upstream = await first_of(
            partial(engine.send, request, stream=True), partial(_lost, revoked)
        )
        await until_answered(aclosing(upstream))
        if upstream.status_code != 200:
            raise engine_refusal(upstream.status_code, await _beginning(upstream))
        return upstream
    raise silent()


async def relay(
    upstream: httpx.Response,
    output: Output,
    *,
    revoked: Revoked,
    content_type: str,
    limits: RelayLimits = _DEFAULTS,
) -> OwnBody:
    """The streamed answer, once its first line exists. Raises what goes wrong before that."""
    taken = await until_answered(exchange(upstream, output, revoked, limits))
    first = b""
    while not first and not taken.over:
        first = await taken.more()
    first = first or await taken.last_words()
    if output.failed is not None and not first:
        raise output.failed
    return Relayed(taken, first, content_type)


async def collect(
    upstream: httpx.Response,
    output: Output,
    *,
    revoked: Revoked,
    limits: RelayLimits = _DEFAULTS,
) -> bytes:
    """The whole answer at once. Raises whatever goes wrong with it."""
    taken = await until_answered(exchange(upstream, output, revoked, limits))
    pieces: list[bytes] = []
    while not taken.over:
        pieces.append(await taken.more())
    pieces.append(await taken.last_words())
    if output.failed is not None:
        raise output.failed
    return b"".join(pieces)


class Relayed(OwnBody):
    """An answer that has begun: by the hub where the client allows it, else by the server."""

    def __init__(self, taken: Exchange, first: bytes, content_type: str) -> None:
        super().__init__(content_type=content_type)  # pyright: ignore[reportUnknownMemberType]
        self._taken = taken
        self._first = first

    async def deliver(self, client: Client) -> None:
        await client.write(self._first)
        if client.direct is not None:
            stream, hub = client.direct
            await Pump(self._taken, stream).run(hub)
        while not self._taken.over:
            if out := await self._taken.more():
                await client.write(out)
        if last := await self._taken.last_words():
            await client.write(last)


class Lines:
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


async def _lost(revoked: Revoked) -> NoReturn:
    raise lost(await revoked())


async def _beginning(upstream: httpx.Response) -> bytes:
    """The body, as far as a refusal may be long."""
    body = b""
    async for piece in upstream.aiter_raw():
        body += piece
        if len(body) > REFUSAL_LIMIT:
            break
    return body[:REFUSAL_LIMIT]
