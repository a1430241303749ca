"""Runs a pull in a process of its own and passes on what it says. Knows nothing of hubs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import trio

from vllamad.core.model_name import ModelName
from vllamad.errors import HostProblem
from vllamad.host.log import escape, event
from vllamad.host.processes.process_endings import Watch, ended, last_error
from vllamad.models.registry.resolve import Origin
from vllamad.protocol.control import Progress

log = logging.getLogger(__name__)

TERM_TIMEOUT = 5.0  # seconds a cancelled pull has to remove what it left half written
_PRINTED_LIMIT = 500  # characters of a line it prints that are kept
_PRINTED_LINES = 100  # of them that are logged

_lines = msgspec.json.Decoder(Progress)


async def run_pull(
    models: Path,
    name: ModelName,
    report: Callable[[Progress], Awaitable[None]],
    origin: Origin | None = None,
    *,
    environ: Mapping[str, str],
) -> None:
    """Fetch a model into the store; `report` is awaited for every step, the last has `done`.

    It comes from `origin`, else from the repository that `name` itself spells. `environ` is the
    environment of its process: huggingface_hub reads the hub's address and the token there.
    The steps come on a pipe of their own: what a library prints goes to the log.

    Raises what stopped it. Cancelled, it leaves no process, no manifest and no partial file.
    """
    read, write = os.pipe()
    words = [str(write), str(models), name.canonical()]
    if origin is not None:
        words.append(msgspec.json.encode(origin).decode())
    watch, last = Watch(), Progress()
    async with trio.lowlevel.FdStream(read) as steps:
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "vllamad.models.hub.pull_process", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environ,
                pass_fds=(write,),
                process_group=0,  # Ctrl-C and kill -PGID are for the supervisor only
            )
        finally:
            os.close(write)
        try:
            async with trio.open_nursery() as nursery:
                printed = _Printed(name)
                nursery.start_soon(printed.listen, process)
                async for line in _lines_of(steps):
                    last = _lines.decode(line)
                    if last.error is None:
                        await report(last)
                code, memory = await ended(process)
        finally:
            await _end(process)
    if last.error is not None:
        raise last.error.error()
    if not last.done:
        how = watch.describe(code, printed.reason(), memory=memory)
        raise HostProblem(f"cannot pull {name.display()}: its process ended: {how}")


class _Printed:
    """What the process of a pull prints: nothing of ours, so each line is logged."""

    def __init__(self, name: ModelName) -> None:
        self._model = name.display()
        self._lines: list[str] = []

    async def listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        async for raw in _lines_of(process.stdout):
            line = escape(raw.decode(errors="replace"))[:_PRINTED_LIMIT]
            if len(self._lines) < _PRINTED_LINES:
                event(log, logging.INFO, "output of a pull", model=self._model, line=line)
            self._lines = [*self._lines[-_PRINTED_LINES:], line]

    def reason(self) -> str:
        return last_error(self._lines)


async def _lines_of(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in stream:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _end(process: trio.Process) -> None:
    """End the process, however the block is left."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(TERM_TIMEOUT):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()
