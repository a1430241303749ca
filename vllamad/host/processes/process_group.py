"""Starts a worker's processes and promises that leaving the block leaves none of them.

Knows nothing of models or engines. Each group is held by a shim (`host/processes/shim.py`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from vllamad.errors import HostProblem
from vllamad.host.processes import shim
from vllamad.host.processes.cgroup import Cgroup
from vllamad.host.processes.process_endings import Exit
from vllamad.host.processes.process_tree import (
    end_strays,
    pid_of,
    pss,
    remove,
    shared_memory,
    strays,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command to run as the leader of a group; `env` is all it gets."""

    argv: tuple[str, ...]  # the first is an absolute path
    env: Mapping[str, str]
    cwd: Path
    log_path: Path  # stdout and stderr, appended
    cgroup: Cgroup | None = None  # joined before exec
    linger: float = 0.5  # seconds the others get once the leader has left by itself


@asynccontextmanager
async def spawn(
    launch: Launch, *, term_timeout: float, kill_timeout: float
) -> AsyncGenerator[ProcessGroup]:
    """Run a group. Leaving the block leaves no process of it.

    TERM to the leader, after `term_timeout` KILL to all, and at most `kill_timeout` until no
    process is left. Raises HostProblem if it cannot start, or if a process survives: then the shim
    goes on killing, and `group.gone` waits for its success.
    """
    shim.become_subreaper()
    group = await _start_shim(launch)
    async with _held(group, term_timeout, kill_timeout):
        await group.start(launch)
        yield group


@asynccontextmanager
async def adopt(
    link: WorkerLink, cgroup: Cgroup | None, *, term_timeout: float, kill_timeout: float
) -> AsyncGenerator[ProcessGroup]:
    """Adopt a group of a previous supervisor; otherwise as `spawn`."""
    control = trio.SocketStream(trio.socket.from_stdlib_socket(link.control))
    group = ProcessGroup(_AdoptedShim(link.shim), control, cgroup)
    group.pid = link.leader
    try:
        async with _held(group, term_timeout, kill_timeout):
            yield group
    finally:
        os.close(link.shim)


@asynccontextmanager
async def _held(
    group: ProcessGroup, term_timeout: float, kill_timeout: float
) -> AsyncGenerator[None]:
    """Empty the group at the end, unless it survives a restart and the daemon is cancelled."""
    released = False
    try:
        yield
    except Exception:
        raise
    except BaseException:
        released = group.survives_restart
        raise
    finally:
        if released:
            group.release()
        else:
            group.survives_restart = False
            await group.empty(term_timeout, kill_timeout)


async def _start_shim(launch: Launch) -> ProcessGroup:
    ours, theirs = socket.socketpair()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with theirs:
        try:
            log = os.open(launch.log_path, flags, 0o600)
        except OSError as problem:
            ours.close()
            raise HostProblem(f"cannot open {launch.log_path}: {problem.strerror}") from problem
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-I", "-S", shim.__file__],
                stdin=theirs,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C and kill -PGID are for the supervisor only
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(log)
    control = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    return ProcessGroup(process, control, launch.cgroup)


class ResourceUsage(NamedTuple):
    """What a whole group uses; None where the kernel does not count it."""

    memory: int  # bytes
    memory_peak: int | None = None
    cpu: float | None = None  # seconds of processor time


class WorkerLink(NamedTuple):
    """The descriptors that hold a group: it runs while any process has the control socket open."""

    control: socket.socket
    shim: int  # a pidfd
    leader: int


class _Shim(Protocol):
    """The process that holds the group."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Wait for its end; not 0 if processes of the group may now be our children."""
        ...


class _AdoptedShim:
    """A shim that a previous supervisor has started, known by a pidfd."""

    def __init__(self, pidfd: int) -> None:
        self.pid = pid_of(pidfd)
        self._pidfd = pidfd

    async def wait(self) -> int:
        await trio.lowlevel.wait_readable(self._pidfd)
        return 0


class ProcessGroup:
    """A running group: `pid` is its leader. Set `kill_now` where it ignores SIGTERM.

    Set `survives_restart` once its link is stored: it then survives the daemon's cancellation.
    """

    def __init__(
        self, shim_process: _Shim, control: trio.SocketStream, cgroup: Cgroup | None
    ) -> None:
        self.pid = 0
        self.kill_now = False
        self.survives_restart = False
        self.cgroup = cgroup
        self._shim = shim_process
        self._control = control
        self._shared: set[str] = set()
        self._unread = b""
        self._end: Exit | None = None
        self._reading = trio.Lock()

    async def start(self, launch: Launch) -> None:
        """Have the shim start the leader. Raises HostProblem."""
        job = shim.Job(
            argv=list(launch.argv),
            env=dict(launch.env),
            cwd=str(launch.cwd),
            cgroup=str(launch.cgroup.path) if launch.cgroup else "",
            linger=launch.linger,
        )
        await self._order(json.dumps(job).encode() + b"\n")
        what, value = await self._report()
        if what != "started":
            why = value or "its shim died"
            raise HostProblem(f"cannot start {launch.argv[0]}: {why}")
        self.pid = int(value)

    async def exited(self) -> int:
        """Wait until the leader is gone: its exit code, or minus the signal that ended it."""
        return (await self.wait_ended()).code

    async def wait_ended(self) -> Exit:
        """Wait until the leader is gone, and say how it ended and what memory it held."""
        async with self._reading:
            while self._end is None:
                what, value = await self._report()
                if what == "exited":
                    code, _, kib = value.partition(" ")
                    self._end = Exit(int(code), int(kib) << 10 if kib else None)
                elif what == "gone":
                    # The shim was killed, and took the leader along.
                    self._end = Exit(-signal.SIGKILL)
        return self._end

    async def terminate(self) -> None:
        """Send TERM to the leader only: it ends its children in order."""
        await self._order(shim.TERM)

    def members(self) -> list[tuple[int, str]]:
        """List the processes of the group as (pid, name in the kernel)."""
        return [(process.pid, process.comm) for process in shim.descendants(self._shim.pid)]

    def usage(self) -> ResourceUsage:
        """Return what the group holds and has used. Slow: use a thread."""
        self._shared = shim.shared_memory(shim.descendants(self._shim.pid))
        group = self.cgroup
        held = group.memory() if group else None
        if held is None:  # each shared page counted once
            held = sum(pss(pid) for pid, _ in self.members())
        return ResourceUsage(
            memory=held,
            memory_peak=group.memory_peak() if group else None,
            cpu=group.cpu() if group else None,
        )

    async def gone(self) -> None:
        """Wait until no process of the group is left, however long that takes."""
        killed = await self._shim.wait() != 0
        left = self.cgroup.pids() if self.cgroup else []  # none, unless the shim was killed
        # Segments that no remaining process maps were seen when the usage was last measured.
        shared = self._shared | shared_memory([*left, *strays()] if killed else left)
        if self.cgroup:
            await self.cgroup.end()
        if killed:
            await end_strays()
        remove(shared)
        if self.cgroup:
            self.cgroup.remove()

    @contextmanager
    def link(self) -> Generator[tuple[int, int]]:
        """Two descriptors to be stored: the control socket, and a pidfd of the shim."""
        pidfd = os.pidfd_open(self._shim.pid)
        try:
            yield self._control.socket.fileno(), pidfd
        finally:
            os.close(pidfd)

    def release(self) -> None:
        """Close our end; the group ends once no process has the control socket open."""
        self._control.socket.close()

    async def empty(self, term_timeout: float, kill_timeout: float) -> None:
        """Return when no process of the group is left; see `spawn`."""
        try:
            if self.pid and not self.kill_now:
                with trio.move_on_after(term_timeout, shield=True):
                    await self.terminate()
                    await self.gone()
            with trio.move_on_after(kill_timeout, shield=True):
                self._hang_up()
                await self.gone()
                return
        finally:
            self._control.socket.close()
        left = ", ".join(f"{pid} ({comm})" for pid, comm in self.members())
        raise HostProblem(
            f"cannot empty the process group of {self.pid}: after {kill_timeout:g} s"
            f" there is still {left or 'its shim'}",
            hint="a process that waits for a device ends only when the device answers",
        )

    async def _order(self, order: bytes) -> None:
        try:
            await self._control.send_all(order)
        except trio.BrokenResourceError:
            pass  # the shim is gone, which `gone` notices

    def _hang_up(self) -> None:
        """Let the shim kill the whole group, and keep reading its reports."""
        try:
            self._control.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the shim is gone

    async def _report(self) -> tuple[str, str]:
        """Return the shim's next report, or `gone`."""
        while b"\n" not in self._unread:
            try:
                more = await self._control.receive_some()
            except trio.BrokenResourceError:
                more = b""
            if not more:
                return "gone", ""
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        what, _, value = line.decode(errors="replace").partition(" ")
        return what, value
