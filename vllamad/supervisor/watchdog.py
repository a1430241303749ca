"""Checks of the daemon itself: readiness, and the watchdog's ping."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from vllamad.host.log import named
from vllamad.host.log_events import LogEvent
from vllamad.host.systemd.notify import Notifier
from vllamad.protocol.lease import ListRunning, encode_message

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds a socket of ours may take to answer
_PAUSE = 0.05
_QUIET_INTERVAL = 10.0  # seconds between two checks without a watchdog


async def until_serving(http: socket.socket, control: Path) -> None:
    """Return once the public API and the control socket both answer."""
    while not await answers(partial(_connect, http), b"GET /api/version HTTP/1.0\r\n\r\n"):  # noqa: ASYNC110
        await trio.sleep(_PAUSE)
    while not await control_answers(control):  # noqa: ASYNC110
        await trio.sleep(_PAUSE)


async def control_answers(path: Path) -> bool:
    request = b"GET /v1/version HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n"
    return await answers(partial(trio.open_unix_socket, path), request)


async def broker_answers(path: Path) -> bool:
    return await answers(partial(trio.open_unix_socket, path), encode_message(ListRunning()))


async def answers(connect: Callable[[], Awaitable[trio.SocketStream]], request: bytes) -> bool:
    """Whether at least one byte comes back in time."""
    with trio.move_on_after(_PATIENCE):
        try:
            stream = await connect()
        except OSError:
            return False
        async with stream:
            try:
                await stream.send_all(request)
                return bool(await stream.receive_some(1))
            except trio.BrokenResourceError:
                return False
    return False


async def beat(notify: Notifier, interval: float | None, *, broker: Path, control: Path) -> None:
    """Feed the watchdog while the event loop, the lease socket and the control socket answer.

    The ping is sent only after both sockets have answered: an event loop that runs but serves
    no request needs a restart like one that hangs.
    """
    pause = interval / 3 if interval else _QUIET_INTERVAL
    while True:
        if await broker_answers(broker) and await control_answers(control):
            notify.watchdog()
        await trio.sleep(pause)


async def guarded(
    notify: Notifier,
    run: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the worker manager; if a bug ends it, let systemd abort and restart the daemon.

    An orderly stop would act on a state that may be wrong, for as long as workers take to stop.
    The watchdog's abort is immediate, and leaves every stack in the journal.
    """
    try:
        await run(task_status=task_status)
    except* Exception:
        log.exception(
            "the worker manager failed, the daemon restarts", extra=named(LogEvent.DAEMON_BROKEN)
        )
        notify.trigger()
        raise


async def _connect(sock: socket.socket) -> trio.SocketStream:
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return await trio.open_unix_socket(address)
    host, port, *_ = address
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return await trio.open_tcp_stream(local.get(host) or host, port)
