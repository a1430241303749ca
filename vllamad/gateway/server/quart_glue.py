"""Quart as we want it: no silent time limits, resources held as long as the answer, own bodies.

It must not know any route or engine.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable
from quart import Request, request
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioResponse
from quart_trio.wrappers.request import TrioBody

from vllamad.gateway.inference.token_pump import TokenPump
from vllamad.gateway.server.request_state import keep_resources, link_of, resources_of

BODY_TIMEOUT: Final = 60.0
READ_AHEAD: Final = 1 << 20  # bytes of such a body that wait for its reader

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSink:
    """Where an answer goes. `write` is the server's way, one chunk a call.

    With `direct`, chunks may be written to the stream by the hub instead, between two writes.
    """

    write: Callable[[bytes], Awaitable[None]]
    direct: tuple[trio.SocketStream, TokenPump] | None


class OwnBody(TrioResponse):
    """A response whose body is not iterated but delivers itself."""

    @abstractmethod
    async def deliver(self, client: ResponseSink) -> None:
        """Write the whole body. Raises BrokenResourceError when the client has left."""


class PacedBody(TrioBody):
    """A body of any length, received no faster than its reader takes it."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self._taken = trio.Event()

    async def room(self) -> None:
        """Wait until there is room for more."""
        while len(self._data) > READ_AHEAD:
            self._taken = trio.Event()
            await self._taken.wait()

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._taken.set()
        return data


class GatewayApp(QuartTrio):
    """The application; without a `hub` every answer goes the plain way.

    `streams_body` says of a path whether its route reads bodies piece by piece.
    """

    def __init__(
        self,
        import_name: str,
        *,
        hub: TokenPump | None = None,
        max_body: int,
        streams_body: Callable[[str], bool] = lambda _: False,
    ) -> None:
        super().__init__(import_name, static_folder=None)
        self.hub = hub
        self.streams_body = streams_body
        # Large bodies at a time: a thread that reads one holds the interpreter again and again.
        self.reading = trio.CapacityLimiter(1)
        self.config["RESPONSE_TIMEOUT"] = None  # 60 s would cut a long answer, without a word
        self.config["BODY_TIMEOUT"] = BODY_TIMEOUT
        self.config["MAX_CONTENT_LENGTH"] = max_body
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Ollama has its own answer to OPTIONS


class GatewayConnection(TrioASGIHTTPConnection):
    """One request and its answer."""

    app: GatewayApp

    def _create_request_from_scope(self, send: ASGISendCallable) -> Request:
        request = super()._create_request_from_scope(send)
        if self.app.streams_body(request.path):
            request.body = PacedBody()
            if link := link_of(self.scope):
                link.stop_counting()
        return request

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        async def paced() -> ASGIReceiveEvent:
            if isinstance(request.body, PacedBody):
                await request.body.room()
            return await receive()

        await super().handle_messages(nursery, request, paced)

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        async with AsyncExitStack() as resources:
            keep_resources(self.scope, resources)
            # Else the body stays in memory until the next garbage collection.
            resources.callback(request.body.clear)
            await super().handle_request(nursery, request, send)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        if not isinstance(response, OwnBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        status = response.status_code
        await send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            await response.deliver(self._client(send))
        except trio.BrokenResourceError:
            return  # the client is gone; the server sees it too
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _client(self, send: ASGISendCallable) -> ResponseSink:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        link = link_of(self.scope)
        chunked = self.scope["http_version"] == "1.1" and self.scope["method"] != "HEAD"
        if self.app.hub is None or not chunked or link is None:
            return ResponseSink(write=write, direct=None)
        return ResponseSink(write=write, direct=(link.stream, self.app.hub))


GatewayApp.asgi_http_class = GatewayConnection


async def hold_until_response_sent(resource: AbstractAsyncContextManager[T]) -> T:
    """Enter `resource`; it is left once the answer is sent, or the client is gone.

    A route's own `async with` would be left when the route returns, before its stream begins.
    Leaving happens in a cancelled scope: it must not wait for anything.
    """
    return await resources_of(request.scope).enter_async_context(resource)
