"""Orders that a gateway passes on to the supervisor, which alone changes the store.

Apart from `vllamactl/control_client.py`, which blocks: here a trio task follows the progress.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from vllamad.errors import BadInput, ServerBusy, Unavailable, WorkerLost
from vllamad.http.control_server import MAX_BODY
from vllamad.http.engine_client import EngineResponse, post_to_engine
from vllamad.protocol.control import Progress
from vllamad.protocol.problem import decode_error

AT_ONCE: Final = 16  # of the 64 connections that the supervisor accepts

_lines = msgspec.json.Decoder(Progress)

T = TypeVar("T")


class SupervisorClient:
    """A client of the control socket."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._room = trio.CapacityLimiter(AT_ONCE)

    @asynccontextmanager
    async def follow(self, path: str, body: msgspec.Struct | None = None) -> AsyncGenerator[Steps]:
        """Give an order and watch it; leaving the block before its end calls a pull off.

        The steps end with one that is `done`. Raises what the supervisor refuses with, also while
        they are read; Unavailable when it is gone, ServerBusy for too many orders at once.
        """
        content = b"" if body is None else msgspec.json.encode(body)
        if len(content) > MAX_BODY:  # it would hang up before it has read so much
            raise BadInput(f"cannot take more than {MAX_BODY} bytes for one model", status=413)
        token = object()
        try:
            self._room.acquire_on_behalf_of_nowait(token)
        except trio.WouldBlock as error:
            raise ServerBusy from error
        try:
            with closing(await _given(self._control, path, content)) as answer:
                yield Steps(answer)
        finally:
            self._room.release_on_behalf_of(token)

    async def carry_out(self, path: str, body: msgspec.Struct | None = None) -> None:
        """Give an order and wait until it is done."""
        async with self.follow(path, body) as steps:
            async for _ in steps:
                pass


class Steps:
    """The steps of progress; raises the error that ends them."""

    def __init__(self, answer: EngineResponse) -> None:
        self._answer = answer
        self._data = b""
        self._done = False

    def __aiter__(self) -> Steps:
        return self

    async def __anext__(self) -> Progress:
        if self._done:
            raise StopAsyncIteration
        while b"\n" not in self._data:
            piece = await _expected(self._answer.more())
            if not piece:
                raise _gone()
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        step = _lines.decode(line)
        if step.error is not None:
            raise step.error.error()
        self._done = step.done
        return step


async def _given(control: Path, path: str, content: bytes) -> EngineResponse:
    """The answer to an order, once it has begun. Raises what it refuses with."""
    answer = await _expected(post_to_engine(str(control), path, content))
    if answer.status == 200:
        return answer
    with closing(answer):
        body = await _expected(answer.read())
    raise decode_error(body)


async def _expected(talk: Awaitable[T]) -> T:
    """Turn a lost connection to the supervisor into Unavailable."""
    try:
        return await talk
    except WorkerLost as error:
        raise _gone() from error


def _gone() -> Unavailable:
    return Unavailable("vllamad is going down", hint="try again shortly")
