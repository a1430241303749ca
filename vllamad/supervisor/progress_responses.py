"""Streams of `Progress` lines: how work that takes long is answered on the control socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from vllamad.errors import VllamadError
from vllamad.http.control_server import Send, StreamResponse
from vllamad.protocol.control import Progress, Reloaded, encode_line, failed
from vllamad.supervisor.models.model_changes import Report

_TICK = 1.0  # seconds between two lines of progress


class Attempt:
    """A reload on its way. Both events are always set in the end."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.over = trio.Event()
        self.outcome = Reloaded()
        self.error: VllamadError | None = None


async def reload_progress(attempt: Attempt, send: Send) -> None:
    """Send what was decided, then that it is in force. The reload does not wait for its reader."""
    await attempt.decided.wait()
    if attempt.error is None:
        await send(encode_line(Progress(status="accepted", reloaded=attempt.outcome)))
    await attempt.over.wait()
    if attempt.error is not None:
        await send(encode_line(failed(attempt.error)))
    else:
        await send(encode_line(Progress(status="done", done=True, reloaded=attempt.outcome)))


def reported(work: Callable[[Report], Awaitable[None]]) -> StreamResponse:
    """Answer with each step that `work` reports, and with the error that stopped it."""

    async def produce(send: Send) -> None:
        try:
            await work(lambda progress: send(encode_line(progress)))
        except VllamadError as error:
            await send(encode_line(failed(error)))

    return StreamResponse(produce=produce)


def ticking(work: Callable[[], Awaitable[str]], status: Callable[[], str]) -> StreamResponse:
    """Answer with a line a second while `work` goes on, then with its result or its error."""

    async def produce(send: Send) -> None:
        began = trio.current_time()

        async def tick() -> None:
            while True:
                elapsed = trio.current_time() - began
                await send(encode_line(Progress(status=status(), elapsed=elapsed)))
                await trio.sleep(_TICK)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                result = await work()
                nursery.cancel_scope.cancel()
            elapsed = trio.current_time() - began
            await send(encode_line(Progress(status=result, done=True, elapsed=elapsed)))
        except* VllamadError as group:
            await send(encode_line(failed(_first(group))))

    return StreamResponse(produce=produce)


def _first(group: BaseExceptionGroup[VllamadError]) -> VllamadError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
