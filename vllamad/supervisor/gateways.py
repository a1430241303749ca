"""Keeps n gateways alive: a gateway that dies is replaced, whatever ended it.

Gateways parse what strangers send, so they are expected to die; nothing is lost with one but the
requests it was answering. The listening sockets are held here and inherited, so that no connection
is refused in between. Those of other settings take the place of the old ones the same way.
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
from vllamad.host.process_endings import Exit, Watch, ended
from vllamad.protocol.gateway_setup import RETIRE, SERVING, TOLD_ON

log = logging.getLogger(__name__)

_GATEWAY: Final = (sys.executable, "-P", "-m", "vllamad", "--gateway")
_STEADY: Final = 10.0  # seconds of life after which a death is an accident, not a habit
_SLOWEST: Final = 5.0
_GRACE: Final = 5.0  # seconds a gateway gets beyond its drain limit to end its streams
_START_LIMIT: Final = 60.0  # seconds until all new ones must serve
_RETIRE_LIMIT: Final = 5.0  # until an old one has heard that it is one
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
        """Those that take connections, or will in a moment."""
        return self._newest.pids

    def serve(self, launch: GatewayLaunch, count: int) -> bool:
        """Whether it is just such gateways that serve now."""
        return (self._newest.launch, self._newest.count) == (launch, count)

    async def run(self) -> None:
        """Keep them alive until `stop`; return when the last one is gone."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._newest.run)
            # `renew` starts those that come after them here.

    def stop(self) -> None:
        """Let each finish its streams within the drain limit; then it is killed."""
        for generation in (*self._retired, self._newest):
            generation.stop()

    async def renew(self, launch: GatewayLaunch, count: int) -> None:
        """Have others take over; return when none of the old ones takes a connection any more.

        What the old ones are answering, they answer to its end. Raises HostProblem where the new
        ones do not come to serve; the old ones then stay.
        """
        assert self._nursery is not None, "they are renewed only while they run"
        old, new = self._newest, _Generation(launch, count)
        self._nursery.start_soon(new.run)
        self._newest = new
        self._retired = [one for one in self._retired if one.pids] + [old]
        with trio.move_on_after(_START_LIMIT) as patience:
            await new.until(lambda told: told.serving)
        if patience.cancelled_caught:
            new.stop()
            self._newest = old
            raise HostProblem(f"cannot start gateways: none serves after {_START_LIMIT:.0f} s")
        old.retire()
        with trio.move_on_after(_RETIRE_LIMIT):
            await old.until(lambda told: told.closed)


@dataclass(slots=True)
class _Told:
    """What a gateway said on its pipe."""

    process: trio.Process
    serving: bool = False
    closed: bool = False  # it takes no more connections


class _Generation:
    """The gateways with the same settings, from their start to the end of the last one."""

    def __init__(self, launch: GatewayLaunch, count: int) -> None:
        self.launch = launch
        self.count = count
        self._leaving = trio.Event()  # none is replaced any more
        self._stopping = trio.Event()  # and there is a limit
        self._told: dict[int, _Told] = {}
        self._news = trio.Event()

    @property
    def pids(self) -> Sequence[int]:
        return sorted(self._told)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._keep, number)

    def stop(self) -> None:
        self._leaving.set()
        self._stopping.set()
        for told in self._told.values():
            told.process.terminate()

    def retire(self) -> None:
        """Take no more connections, and end with the last answer."""
        self._leaving.set()
        for told in self._told.values():
            told.process.send_signal(RETIRE)

    async def until(self, so: Callable[[_Told], bool]) -> None:
        """Wait until that is so of every one there is to be."""
        while not all(map(so, self._told.values())) or (
            len(self._told) < self.count and not self._leaving.is_set()
        ):
            self._news = trio.Event()
            await self._news.wait()

    async def _keep(self, number: int) -> None:
        delay = 0.1
        while not self._leaving.is_set():
            born = trio.current_time()
            try:
                orderly, how = await self._live(number)
            except OSError as error:  # no memory or descriptor for another process, just now
                orderly, how = False, f"cannot start: {error.strerror}"
            if self._leaving.is_set():
                return
            lived = trio.current_time() - born
            delay = 0.1 if lived >= _STEADY else min(_SLOWEST, delay * 2)
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
            # Whoever ended it in order may be about to end us too: then it is nothing to tell.
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
        """One gateway from its start to its end: whether that was an orderly one, and how."""
        watch = Watch()
        read, write = os.pipe()
        async with trio.lowlevel.FdStream(read) as pipe:
            try:
                process = await trio.lowlevel.open_process(
                    self.launch.argv,
                    stdin=subprocess.PIPE,
                    stdout=2,  # nothing of ours: what a library prints goes where our log does
                    pass_fds=(*self.launch.sockets, write),
                    env={**self.launch.environment, TOLD_ON: str(write)},
                    process_group=0,  # Ctrl-C and kill -PGID are for the supervisor only
                )
            finally:
                os.close(write)
            code, memory = await self._while_it_lives(number, process, pipe)
        return code in (0, -signal.SIGTERM, -signal.SIGINT), watch.told(code, memory=memory)

    async def _while_it_lives(
        self, number: int, process: trio.Process, pipe: trio.abc.ReceiveStream
    ) -> Exit:
        assert process.stdin is not None
        told = self._told[process.pid] = _Told(process)
        if self._leaving.is_set():  # while it was being started
            process.terminate()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, told, pipe)
                await self._tell(process.stdin)
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
            del self._told[process.pid]
            self._news.set()

    async def _listen(self, told: _Told, output: trio.abc.ReceiveStream) -> None:
        heard = b""
        while piece := await output.receive_some():
            heard += piece
            told.serving = SERVING in heard
            self._news.set()
        told.closed = True
        self._news.set()

    async def _tell(self, pipe: trio.abc.SendStream) -> None:
        """Say what there is to know. The pipe then stays open: its end tells of ours."""
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
