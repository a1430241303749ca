"""Runs a pull in a process of its own and passes on what it says. Knows nothing of hubs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import trio

from vllamad.core.model_name import ModelName
from vllamad.errors import HostProblem, from_kind
from vllamad.host.endings import Watch, ended
from vllamad.models.origins import Origin
from vllamad.wire.control import Progress

TERM_TIMEOUT = 5.0  # seconds a cancelled pull has to remove what it left half written

_lines = msgspec.json.Decoder(Progress)


async def pull(
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

    Raises what stopped it. Cancelled, it leaves no process, no manifest and no partial file.
    """
    command = [sys.executable, "-m", "vllamad.models.pull", str(models), name.canonical()]
    if origin is not None:
        command.append(msgspec.json.encode(origin).decode())
    watch = Watch()
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    last = Progress()
    try:
        async for line in _lines_of(process):
            last = _lines.decode(line)
            if last.error is None:
                await report(last)
        code, memory = await ended(process)
    finally:
        await _end(process)
    if last.error is not None:
        raise from_kind(last.error.kind, last.error.message, last.error.hint)
    if not last.done:
        how = watch.told(code, memory=memory)
        raise HostProblem(f"cannot pull {name.display()}: its process ended: {how}")


async def _lines_of(process: trio.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    rest = b""
    async for piece in process.stdout:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line


async def _end(process: trio.Process) -> None:
    """Leave no process, whatever the reason."""
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
