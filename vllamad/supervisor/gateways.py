"""Runs the gateways: a gateway that dies is replaced, and a reload replaces all of them.

Gateways parse untrusted input, so they may die; only the requests of that gateway are lost. The
supervisor holds the listening sockets and gateways inherit them, so no connection is refused while
one is replaced.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from vllamad.errors import HostProblem
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.process_endings import Exit, Watch, ended
from vllamad.protocol.gateway_setup import RETIRE, SERVING, TOLD_ON

log = logging.getLogger(__name__)

_GATEWAY: Final = (sys.executable, "-P", "-m", "vllamad", "--gateway")
_STEADY: Final = 10.0  # seconds of life that reset the delay before a restart
_MAX_DELAY: Final = 5.0  # seconds before a restart
_GRACE: Final = 5.0  # seconds a gateway gets beyond its drain limit to end its streams
_START_LIMIT: Final = 60.0  # seconds until all gateways of a generation must serve
_RETIRE_LIMIT: Final = 5.0  # seconds a gateway gets to stop accepting
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
        self._newest = _Generation(launch, count)
        self._retired: list[_Generation] = []
        self._nursery: trio.Nursery | None = None

    @property
    def pids(self) -> Sequence[int]:
        """The gateways that accept connections, or will once started."""
        return self._newest.pids

    def serve(self, launch: GatewayLaunch, count: int) -> bool:
        """Whether the current gateways have exactly this launch and number."""
        return (self._newest.launch, self._newest.count) == (launch, count)

    async def run(self) -> None:
        """Run gateways until `stop`; return when the last one is gone."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._newest.run)
            # `renew` starts later generations in this nursery.

    def stop(self) -> None:
        """Let each gateway finish its streams within the drain limit, then kill it."""
        for generation in (*self._retired, self._newest):
            generation.stop()

    async def renew(self, launch: GatewayLaunch, count: int) -> None:
        """Replace all gateways; return when no old one accepts connections any more.

        The old ones finish the requests they have. Raises HostProblem if the new ones do not
        serve in time; the old ones then stay.
        """
        assert self._nursery is not None, "gateways are replaced only while they run"
        old, new = self._newest, _Generation(launch, count)
        self._nursery.start_soon(new.run)
        self._newest = new
        self._retired = [past for past in self._retired if past.pids] + [old]
        with trio.move_on_after(_START_LIMIT) as patience:
            await new.until(lambda gateway: gateway.serving)
        if patience.cancelled_caught:
            new.stop()
            self._newest = old
            raise HostProblem(
                f"cannot start gateways: no gateway serves after {_START_LIMIT:.0f} s"
            )
        old.retire()
        with trio.move_on_after(_RETIRE_LIMIT):
            await old.until(lambda gateway: gateway.closed)


@dataclass(slots=True)
class _Gateway:
    """One gateway process, and what it reported on its pipe."""

    process: trio.Process
    serving: bool = False
    closed: bool = False  # it accepts no more connections


class _Generation:
    """The gateways of one launch, from their start to the end of the last one."""

    def __init__(self, launch: GatewayLaunch, count: int) -> None:
        self.launch = launch
        self.count = count
        self._leaving = trio.Event()  # set: a gateway that ends is not replaced
        self._stopping = trio.Event()  # set: the drain limit applies
        self._gateways: dict[int, _Gateway] = {}
        self._changed = trio.Event()

    @property
    def pids(self) -> Sequence[int]:
        return sorted(self._gateways)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._run_one, number)

    def stop(self) -> None:
        self._leaving.set()
        self._stopping.set()
        for gateway in self._gateways.values():
            gateway.process.terminate()

    def retire(self) -> None:
        """Let each accept no more connections, and exit after its last response."""
        self._leaving.set()
        for gateway in self._gateways.values():
            gateway.process.send_signal(RETIRE)

    async def until(self, condition: Callable[[_Gateway], bool]) -> None:
        """Wait until `condition` holds for every gateway of this generation."""
        while not all(map(condition, self._gateways.values())) or (
            len(self._gateways) < self.count and not self._leaving.is_set()
        ):
            self._changed = trio.Event()
            await self._changed.wait()

    async def _run_one(self, number: int) -> None:
        delay = 0.1
        while not self._leaving.is_set():
            born = trio.current_time()
            try:
                orderly, how = await self._live(number)
            except OSError as error:  # out of memory or descriptors at the moment
                orderly, how = False, f"cannot start: {error.strerror}"
            if self._leaving.is_set():
                return
            lived = trio.current_time() - born
            delay = 0.1 if lived >= _STEADY else min(_MAX_DELAY, delay * 2)
            if not orderly:
                event(
                    log,
                    logging.ERROR,
                    "gateway died",
                    LogEvent.GATEWAY_DIED,
                    gateway=number,
                    reason=how,
                    again_in=delay,
                )
            with trio.move_on_after(delay):
                await self._leaving.wait()
            # A terminal or systemd may be about to stop the supervisor too: then it is not logged.
            if orderly and not self._leaving.is_set():
                event(
                    log,
                    logging.WARNING,
                    "gateway was terminated",
                    LogEvent.GATEWAY_TERMINATED,
                    gateway=number,
                    reason=how,
                    again_in=0,
                )

    async def _live(self, number: int) -> tuple[bool, str]:
        """Run one gateway: whether its end was an orderly one, and how it ended."""
        watch = Watch()
        read, write = os.pipe()
        async with trio.lowlevel.FdStream(read) as pipe:
            try:
                process = await trio.lowlevel.open_process(
                    self.launch.argv,
                    stdin=subprocess.PIPE,
                    stdout=2,  # what a library prints goes to the log
                    pass_fds=(*self.launch.sockets, write),
                    env={**self.launch.environment, TOLD_ON: str(write)},
                    process_group=0,  # Ctrl-C and kill -PGID are for the supervisor only
                )
            finally:
                os.close(write)
            code, memory = await self._supervise(number, process, pipe)
        return code in (0, -signal.SIGTERM, -signal.SIGINT), watch.describe(code, memory=memory)

    async def _supervise(
        self, number: int, process: trio.Process, pipe: trio.abc.ReceiveStream
    ) -> Exit:
        assert process.stdin is not None
        gateway = self._gateways[process.pid] = _Gateway(process)
        if self._leaving.is_set():  # while it was being started
            process.terminate()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_reports, gateway, pipe)
                await self._send_settings(process.stdin)
                event(
                    log,
                    logging.INFO,
                    "gateway started",
                    LogEvent.GATEWAY_STARTED,
                    gateway=number,
                    pid=process.pid,
                )
                end = await self._until_gone(process)
                nursery.cancel_scope.cancel()
            return end
        finally:
            process.kill()
            with trio.move_on_after(_REAP_LIMIT, shield=True):
                await process.stdin.aclose()
                await process.wait()
            del self._gateways[process.pid]
            self._changed.set()

    async def _read_reports(self, gateway: _Gateway, pipe: trio.abc.ReceiveStream) -> None:
        received = b""
        while piece := await pipe.receive_some():
            received += piece
            gateway.serving = SERVING in received
            self._changed.set()
        gateway.closed = True
        self._changed.set()

    async def _send_settings(self, pipe: trio.abc.SendStream) -> None:
        """Send the settings. The pipe stays open; the gateway exits when it closes."""
        try:
            await pipe.send_all(self.launch.settings + b"\n")
        except trio.BrokenResourceError:
            pass  # it died at once; the caller sees its status

    async def _until_gone(self, process: trio.Process) -> Exit:
        async with trio.open_nursery() as nursery:

            async def limit() -> None:
                await self._stopping.wait()
                await trio.sleep(self.launch.drain_timeout + _GRACE)
                event(
                    log,
                    logging.WARNING,
                    "killing a gateway that does not end",
                    LogEvent.GATEWAY_KILLED,
                    pid=process.pid,
                )
                process.kill()

            nursery.start_soon(limit)
            end = await ended(process)
            nursery.cancel_scope.cancel()
        return end
