"""Serves the lease socket: one connection is one lease.

The messages are in `protocol/lease.py`. A gateway that closes, is cancelled or dies ends its
lease by ending the connection; an invalid message ends its connection and nothing else.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from vllamad.core.launch import Spec
from vllamad.errors import VllamadError
from vllamad.host.log import event, named
from vllamad.host.log_events import LogEvent
from vllamad.host.tasks import first_of
from vllamad.protocol.lease import (
    LINE_LIMIT,
    Acquire,
    Done,
    LeaseReply,
    ListRunning,
    Refused,
    Revoked,
    Running,
    Unload,
    decode_lease_request,
    encode_message,
)
from vllamad.protocol.problem import Problem
from vllamad.supervisor.workers.manager import WorkerManager

log = logging.getLogger(__name__)

SpecOf = Callable[[str], Awaitable[Spec]]
_QUESTION_LIMIT = 30.0  # seconds a gateway may take to send its request
_SEND_LIMIT = 30.0  # seconds a gateway may leave a message unread


class LeaseServer:
    """Serves gateways; `spec_of` finds a model by its name or raises ModelNotFound."""

    def __init__(self, fleet: WorkerManager, spec_of: SpecOf) -> None:
        self._fleet = fleet
        self._spec_of = spec_of

    async def attend(self, stream: trio.SocketStream) -> None:
        """Serve one connection; a bug ends no other one."""
        async with stream:
            try:
                await self._answer(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                pass
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                event(log, logging.WARNING, "invalid message from a gateway", error=str(error))
            except Exception:
                log.exception(
                    "internal error in a lease connection", extra=named(LogEvent.INTERNAL_ERROR)
                )

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.fail_after(_QUESTION_LIMIT):
            line = await _read_line(stream)
        if not line:
            return
        match decode_lease_request(line):
            case Acquire(model=model, keep_alive=keep_alive):
                await self._lease(stream, model, _seconds(keep_alive))
            case Unload(model=model):
                self._fleet.unload(model)
                await _say(stream, Done())
            case ListRunning():
                await _say(stream, Running(models=self._fleet.workers()))

    async def _lease(self, stream: trio.SocketStream, model: str, keep_alive: float | None) -> None:
        try:
            spec = await self._spec_of(model)
        except VllamadError as error:
            await _say(stream, Refused(problem=Problem.of(error)))
            return
        async with self._fleet.lease(spec, keep_alive) as verdicts:

            async def send_verdicts() -> None:
                async for verdict in verdicts:
                    try:
                        await _say(stream, verdict)
                    except (trio.BrokenResourceError, trio.TooSlowError):
                        return  # the gateway has just left
                    if isinstance(verdict, Refused | Revoked):
                        return

            # The gateway sends nothing more: a byte, or the end of the connection, ends the lease.
            await first_of(send_verdicts, partial(_until_closed, stream))


def listen(path: Path) -> trio.SocketListener:
    """Bind the lease socket with mode 0600; one that a previous daemon left is replaced."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(4096)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def _read_line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while b"\n" not in data:
        piece = await stream.receive_some(4096)
        if not piece:
            return b""
        data += piece
        if len(data) > LINE_LIMIT:
            raise msgspec.DecodeError(f"a line of more than {LINE_LIMIT} bytes")
    return bytes(data).partition(b"\n")[0]


async def _until_closed(stream: trio.SocketStream) -> None:
    try:
        await stream.receive_some(1)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _say(stream: trio.SocketStream, answer: LeaseReply) -> None:
    with trio.fail_after(_SEND_LIMIT):
        await stream.send_all(encode_message(answer))


def _seconds(keep_alive: float | None) -> float | None:
    return float("inf") if keep_alive is not None and keep_alive < 0 else keep_alive
