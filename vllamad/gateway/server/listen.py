"""Listening: connections on given sockets, for one ASGI application, until asked to stop.

It must not know any route. What happens on a connection is in `connection.py`.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from vllamad.gateway.server.connection import HEAD_LIMIT, Connection, ServerLimits, Shared
from vllamad.host.log import named
from vllamad.host.log_events import LogEvent
from vllamad.host.tasks import first_of

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
TURNED_AWAY_AT_ONCE: Final = 32  # that many are heard out first: each holds a descriptor

_DEFAULTS: Final = ServerLimits()
_OVERLOADED: Final = (
    b"HTTP/1.1 503 \r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
)


async def serve(
    app: ASGIFramework,
    sockets: list[socket.socket],
    *,
    shutdown: trio.Event,
    retire: trio.Event,
    limits: ServerLimits = _DEFAULTS,
    task_status: trio.TaskStatus[trio.Event] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `shutdown`; then accept nothing more, let answers end, and cut what is left.

    Takes over the bound `sockets`. Returns at most `limits.drain` seconds after `shutdown`, plus
    what the application needs once it is cancelled, whatever the clients do. `retire` is the same
    without a limit. The status is an event: no connection is accepted any more.
    """
    closed = trio.Event()
    server = _Server(app, limits)
    async with trio.open_nursery() as around:
        lifespan = Lifespan(server.shared.app, server.shared.config, {})
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as handlers:
            try:
                async with trio.open_nursery() as accepting:
                    accept = partial(trio.serve_listeners, handler_nursery=handlers)
                    listeners = [_listener(sock, limits) for sock in sockets]
                    accepting.start_soon(accept, server.handle, listeners)
                    task_status.started(closed)
                    await first_of(shutdown.wait, retire.wait)
                    accepting.cancel_scope.cancel()
                closed.set()
                await server.drain(shutdown)
            finally:
                server.cut()
                handlers.cancel_scope.cancel()
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel()


class _Server:
    """The open connections, and what they share."""

    def __init__(self, app: ASGIFramework, limits: ServerLimits) -> None:
        self.shared = Shared(
            app=ASGIWrapper(app),
            config=_hypercorn_config(),
            context=WorkerContext(None),
            limits=limits,
        )
        self._open: set[Connection] = set()
        self._turned_away = 0
        self._empty = trio.Event()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection; no error of it gets out."""
        if not self._make_way():
            await self._turn_away(stream)
            return
        connection = Connection(self.shared, stream)
        self._open.add(connection)
        try:
            await connection.run()
        except* OSError:
            pass  # the client left before we asked who it is
        except* Exception:
            log.exception("internal error in a connection", extra=named(LogEvent.INTERNAL_ERROR))
        finally:
            self._open.discard(connection)
            if not self._open:
                self._empty.set()

    def _make_way(self) -> bool:
        """Whether there is room for one more; if need be, in place of who asks nothing longest."""
        if len(self._open) < self.shared.limits.connections:
            return True
        until = trio.current_time() - self.shared.limits.silence
        silent = [(one.silent_since, one) for one in self._open if one.silent_since < until]
        if not silent:
            return False
        _, longest = min(silent, key=lambda pair: pair[0])
        longest.abort()
        self._open.discard(longest)
        return True

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        patience = 1.0 if self._turned_away < TURNED_AWAY_AT_ONCE else 0.02
        self._turned_away += 1
        try:
            with trio.move_on_after(patience):
                # closing with a request unread would reset our answer away
                await stream.receive_some()
            await stream.send_all(_OVERLOADED)  # few enough bytes never to wait
        except trio.BrokenResourceError:
            pass
        finally:
            self._turned_away -= 1

    async def drain(self, hurry: trio.Event) -> None:
        """Let answers that have begun come to their end; from `hurry` on there is a limit."""
        self.shared.take_leave()
        self._empty = trio.Event()
        for connection in self._open:
            connection.wake()
        if not self._open:
            return
        async with trio.open_nursery() as nursery:

            async def limit() -> None:
                await hurry.wait()
                await trio.sleep(self.shared.limits.drain)
                nursery.cancel_scope.cancel()

            nursery.start_soon(limit)
            await self._empty.wait()
            nursery.cancel_scope.cancel()

    def cut(self) -> None:
        """Close every connection; a write to a client that does not read ends with it."""
        for connection in self._open:
            connection.abort()


def _listener(sock: socket.socket, limits: ServerLimits) -> trio.SocketListener:
    sock.setblocking(False)
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        # accepted sockets inherit it: the kernel gives up on a client that takes nothing
        stall_ms = int(limits.write_stall * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
    sock.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _hypercorn_config() -> Config:
    """What is left of Hypercorn's settings, where we disagree with its defaults."""
    config = Config()
    config.accesslog = None  # its line copies all headers and the environment for each request
    config.errorlog = log
    config.include_server_header = False
    config.h11_max_incomplete_size = HEAD_LIMIT
    config.keep_alive_max_requests = 1_000_000_000
    return config
