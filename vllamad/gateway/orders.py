"""Orders a gateway passes on to the supervisor: whatever changes the store is done over there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
import msgspec
import trio

from vllamad.errors import ServerBusy, Unavailable, VllamadError, from_kind
from vllamad.host.http_client import client_for
from vllamad.wire.control import Problem, ProblemBody, Progress

AT_ONCE: Final = 16  # of 64 connections the supervisor has for everybody

_JSON: Final = {"content-type": "application/json"}

_lines = msgspec.json.Decoder(Progress)

Steps = AsyncIterator[Progress]


class Orders:
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
        token = object()
        try:
            self._room.acquire_on_behalf_of_nowait(token)
        except trio.WouldBlock as error:
            raise ServerBusy from error
        try:
            async with (
                client_for(str(self._control)) as client,
                client.stream(
                    "POST",
                    path,
                    content=b"" if body is None else msgspec.json.encode(body),
                    headers=_JSON,
                    timeout=None,
                ) as response,
            ):
                if response.status_code != 200:
                    raise _refusal(await response.aread())
                async with aclosing(_steps(response)) as steps:
                    yield steps
        except httpx.HTTPError as error:
            raise _gone() from error
        finally:
            self._room.release_on_behalf_of(token)

    async def carry_out(self, path: str, body: msgspec.Struct | None = None) -> None:
        """Give an order and wait until it is done."""
        async with self.follow(path, body) as steps:
            async for _ in steps:
                pass


def model_path(model: str, action: str) -> str:
    """The control API's path of a model; a `/` in the name is not one in the path."""
    return f"/v1/models/{quote(model, safe='')}/{action}"


async def _steps(response: httpx.Response) -> AsyncGenerator[Progress]:
    done = False
    try:
        async for line in response.aiter_lines():
            step = _lines.decode(line)
            if step.error is not None:
                raise _rebuilt(step.error)
            yield step
            done = step.done
    except httpx.HTTPError as error:
        raise _gone() from error
    if not done:
        raise _gone()


def _refusal(body: bytes) -> VllamadError:
    return _rebuilt(msgspec.json.decode(body, type=ProblemBody).error)


def _rebuilt(problem: Problem) -> VllamadError:
    return from_kind(problem.kind, problem.message, problem.hint)


def _gone() -> Unavailable:
    return Unavailable("vllamad is going down", hint="try again shortly")
