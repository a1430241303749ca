"""Keeps n gateways alive: a gateway that dies is replaced, whatever ended it.

Gateways parse what strangers send, so they are expected to die; nothing is lost with one but the
requests it was answering. The listening sockets are held here and inherited, so that no connection
is refused in between.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from vllamad.host.log import event

log = logging.getLogger(__name__)

_GATEWAY: Final = (sys.executable, "-P", "-m", "vllamad", "--gateway")
_STEADY: Final = 10.0  # seconds of life after which a death is an accident, not a habit
_SLOWEST: Final = 5.0
_GRACE: Final = 5.0  # seconds a gateway gets beyond its drain limit to end its streams
_REAP_LIMIT: Final = 5.0  # a killed process is gone within milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLaunch:
    """How a gateway is started: what it reads on standard input, and the sockets it inherits."""

    settings: bytes
    sockets: tuple[int, ...]
    environment: dict[str, str]
    drain_timeout: float
    argv: tuple[str, ...] = _GATEWAY


class Gateways:
    """The gateways of one daemon."""

    def __init__(self, launch: GatewayLaunch, count: int) -> None:
        self._launch = launch
        self._count = count
        self._stopping = trio.Event()
        self._processes: dict[int, trio.Process] = {}

    @property
    def pids(self) -> Sequence[int]:
        return sorted(self._processes)

    async def run(self) -> None:
        """Keep them alive until `stop`; return when the last one is gone."""
        async with trio.open_nursery() as nursery:
            for number in range(self._count):
                nursery.start_soon(self._keep, number)

    def stop(self) -> None:
        """Let each finish its streams within the drain limit; then it is killed."""
        self._stopping.set()
        for process in self._processes.values():
            process.terminate()

    async def _keep(self, number: int) -> None:
        delay = 0.1
        while not self._stopping.is_set():
            born = trio.current_time()
            try:
                how = f"exit status {await self._live(number)}"
            except OSError as error:  # no memory or descriptor for another process, just now
                how = f"cannot start: {error.strerror}"
            if self._stopping.is_set():
                return
            lived = trio.current_time() - born
            delay = 0.1 if lived >= _STEADY else min(_SLOWEST, delay * 2)
            event(log, logging.ERROR, "gateway died", gateway=number, reason=how, again_in=delay)
            with trio.move_on_after(delay):
                await self._stopping.wait()

    async def _live(self, number: int) -> int:
        """One gateway from its start to its end; the exit status."""
        process = await trio.lowlevel.open_process(
            self._launch.argv,
            stdin=subprocess.PIPE,
            pass_fds=self._launch.sockets,
            env=self._launch.environment,
        )
        self._processes[process.pid] = process
        if self._stopping.is_set():  # while it was being started
            process.terminate()
        try:
            await self._tell(process)
            event(log, logging.INFO, "gateway started", gateway=number, pid=process.pid)
            return await self._until_gone(process)
        finally:
            process.kill()
            assert process.stdin is not None
            with trio.move_on_after(_REAP_LIMIT, shield=True):
                await process.stdin.aclose()
                await process.wait()
            del self._processes[process.pid]

    async def _tell(self, process: trio.Process) -> None:
        """Say what there is to know. The pipe then stays open: its end tells of ours."""
        assert process.stdin is not None
        try:
            await process.stdin.send_all(self._launch.settings + b"\n")
        except trio.BrokenResourceError:
            pass  # it died at once; the caller sees its status

    async def _until_gone(self, process: trio.Process) -> int:
        async with trio.open_nursery() as nursery:

            async def limit() -> None:
                await self._stopping.wait()
                await trio.sleep(self._launch.drain_timeout + _GRACE)
                event(log, logging.WARNING, "gateway does not end, killing it", pid=process.pid)
                process.kill()

            nursery.start_soon(limit)
            code = await process.wait()
            nursery.cancel_scope.cancel()
        return code
