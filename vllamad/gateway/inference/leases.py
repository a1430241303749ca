"""The right to use one worker, for exactly as long as a connection to the supervisor is open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import msgspec
import trio

from vllamad.errors import Unavailable, VllamadError
from vllamad.protocol.control import WorkerInfo
from vllamad.protocol.lease import (
    LINE_LIMIT,
    Acquire,
    Done,
    Granted,
    LeaseReply,
    LeaseRequest,
    ListRunning,
    Refused,
    Revoked,
    Running,
    Unload,
    decode_lease_reply,
    encode_message,
)


class Lease:
    """A granted lease: `grant` says where the worker is."""

    def __init__(self, grant: Granted, lines: _Lines) -> None:
        self.grant = grant
        self._lines = lines

    async def revoked(self) -> str:
        """Wait until the worker is gone; the reason. Also told when the supervisor itself dies."""
        try:
            match await self._lines.next():
                case Revoked(reason=reason):
                    return reason
                case _:
                    return "cannot read the supervisor's reply"
        except VllamadError as error:
            return error.message


@asynccontextmanager
async def lease(
    broker: Path, model: str, keep_alive: float | None, request_id: str
) -> AsyncGenerator[Lease]:
    """Hold one worker of `model`, loading it first if need be; leaving the block gives it back.

    `keep_alive` is seconds, infinite for ever. Raises what the supervisor refuses with.
    """
    seconds = None if keep_alive is None else -1.0 if keep_alive == inf else float(keep_alive)
    async with await _connect(broker) as stream:
        lines = _Lines(stream)
        await _ask(stream, Acquire(model=model, keep_alive=seconds, request_id=request_id))
        while True:
            match await lines.next():
                case Granted() as grant:
                    break
                case Refused(problem=problem):
                    raise problem.error()
                case _:
                    pass  # still waiting
        yield Lease(grant, lines)


async def unload(broker: Path, model: str) -> None:
    """Unload `model` as soon as no lease uses it."""
    answer = await _exchange(broker, Unload(model=model))
    assert isinstance(answer, Done), answer


async def running(broker: Path) -> list[WorkerInfo]:
    """The workers that are loaded now."""
    answer = await _exchange(broker, ListRunning())
    assert isinstance(answer, Running), answer
    return answer.models


async def _exchange(broker: Path, question: LeaseRequest) -> LeaseReply:
    async with await _connect(broker) as stream:
        await _ask(stream, question)
        return await _Lines(stream).next()


async def _connect(broker: Path) -> trio.SocketStream:
    try:
        return await trio.open_unix_socket(broker)
    except OSError as error:
        raise Unavailable("vllamad is not up", hint="try again shortly") from error


async def _ask(stream: trio.SocketStream, question: LeaseRequest) -> None:
    try:
        await stream.send_all(encode_message(question))
    except trio.BrokenResourceError as error:
        raise Unavailable("vllamad is going down", hint="try again shortly") from error


class _Lines:
    """The supervisor's answers, one at a time; nothing is lost when a wait is cancelled."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def next(self) -> LeaseReply:
        """The next answer. Raises Unavailable when the supervisor is gone."""
        while b"\n" not in self._data:
            try:
                piece = await self._stream.receive_some(LINE_LIMIT)
            except trio.BrokenResourceError:
                piece = b""
            if not piece:
                raise Unavailable("vllamad is going down", hint="try again shortly")
            self._data += piece
        line, _, rest = bytes(self._data).partition(b"\n")
        self._data = bytearray(rest)
        try:
            return decode_lease_reply(line)
        except msgspec.DecodeError as error:
            raise AssertionError(f"the supervisor said {line[:80]!r}") from error
