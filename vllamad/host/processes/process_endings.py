"""How a process ended, in words: one wording for workers, trials of a runtime, pulls and gateways.

    exit status 3: ValueError: no such file
    killed by SIGILL (illegal instruction): Fatal Python error ...
    killed by SIGBUS (bus error): /dev/shm has 0 MiB of 64 MiB free
    killed by SIGKILL: out of memory, the kernel's OOM killer ended it; it had 812 MiB

Knows nothing of engines: which line of an output tells the cause is the caller's to find.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from vllamad.host.processes.cgroup import folder_of

_SHM = Path("/dev/shm")
_VMSTAT = Path("/proc/vmstat")
_MIB = 1 << 20
_STARVED = "out of memory, the kernel's OOM killer ended it"

# Python's faulthandler and PyTorch say no more than the signal does.
_ECHO = re.compile(
    r"Fatal Python error: (?:Segmentation fault|Aborted|Bus error|Illegal instruction|Floating)"
    r"|.*Segfault encountered"
)

_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*)?(?:Error|Exception)(?:: |$)|ERROR: |error: ")

# linux/pidfd.h: struct pidfd_info, and the exit status of a process that is reaped already.
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11), 64 bytes
_PIDFD_INFO_EXIT = 1 << 3
_MASK = struct.Struct("=Q52xi")  # its mask, and its exit_code at byte 60


class Exit(NamedTuple):
    """The end of a process: its exit status, or minus the signal that ended it."""

    code: int
    memory: int | None = None  # bytes it held at most; None where the kernel does not say


class Watch:
    """Explains why a process was killed, from the kernel's counters before and after its run."""

    def __init__(self, cgroup: Path | None = None) -> None:
        """Watch a process of this cgroup, else of our own."""
        self._counter = _counter(cgroup or _own_cgroup())
        self._kills = _oom_kills(self._counter)
        self._largest = _largest_child()

    def describe(self, code: int, line: str = "", *, memory: int | None = None) -> str:
        """Describe how it ended, with the line of its output that names the cause, if one does.

        `code` is its exit status, or minus a signal. `memory` is what it held at most, in bytes;
        without it the largest child that was waited for meanwhile is taken.
        """
        if code >= 0:
            return f"exit status {code}: {line}" if line else f"exit status {code}"
        number = -code
        words = f"killed by {signal_name(number)}"
        line = "" if _ECHO.match(line) else line
        facts = "; ".join(self._facts(number, memory))
        return ": ".join(part for part in (words, facts, line) if part)

    def _facts(self, number: int, memory: int | None) -> list[str]:
        if number == signal.SIGBUS:
            return [_shared_memory()]
        if number != signal.SIGKILL:
            return []
        if memory is None and (largest := _largest_child()) > self._largest:
            memory = largest
        held = [] if memory is None else [f"it had {memory // _MIB} MiB"]
        kills = _oom_kills(self._counter)
        if kills is None or self._kills is None:
            return held
        return [_STARVED if kills > self._kills else "not by the kernel's OOM killer", *held]


def starved(memory: int | None, limit: int) -> str:
    """Say that the OOM killer ended it in a cgroup of its own; `limit` is memory.max, 0 if none."""
    held = "" if memory is None else f"; it had {memory // _MIB} MiB"
    bound = f"; its memory_max is {limit // _MIB} MiB" if limit else ""
    return f"killed by SIGKILL: {_STARVED}{held}{bound}"


def last_error(lines: Sequence[str]) -> str:
    """Return the last line that names an error, as the end of a traceback does; else ""."""
    return next((line for line in reversed(lines) if _ERROR.match(line)), "")


def signal_name(number: int) -> str:
    """Return `SIGILL (illegal instruction)`, or `signal 40` where it has no name."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    words = signal.strsignal(number)
    if not words or number == signal.SIGKILL:  # "killed by SIGKILL (killed)"
        return name
    return f"{name} ({words[0].lower()}{words[1:]})"


async def ended(process: trio.Process) -> Exit:
    """Wait until a child of ours has ended, and reap it, with the memory it held."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:  # reaped already, when a signal was to be sent to it
        return Exit(await process.wait())
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
    try:
        _, status, usage = os.wait4(process.pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended
    except ChildProcessError:
        return Exit(await process.wait())
    await process.wait()  # it learns that there is nothing left to wait for
    return Exit(os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10)


def exit_code(pid: int, pidfd: int) -> int | None:
    """The exit code of an ended process that is not our child; None where the kernel does not say.

    Before its parent reaps it, /proc knows; after that the pidfd does, from Linux 6.15 on.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        if fields[0] == "Z":
            return os.waitstatus_to_exitcode(int(fields[49]))
    except (OSError, ValueError, IndexError):
        pass  # reaped, or of another user
    info = bytearray(_MASK.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = _MASK.unpack(info)
    return os.waitstatus_to_exitcode(status) if mask & _PIDFD_INFO_EXIT else None


def _shared_memory() -> str:
    try:
        room = os.statvfs(_SHM)
    except OSError as problem:
        return f"{_SHM} cannot be asked: {problem.strerror}"
    free, size = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    return f"{_SHM} has {free // _MIB} MiB of {size // _MIB} MiB free"


def _own_cgroup() -> Path | None:
    try:
        proc = Path("/proc/self")
        return folder_of((proc / "mountinfo").read_text(), (proc / "cgroup").read_text())
    except OSError:
        return None


def _counter(cgroup: Path | None) -> Path:
    """The file that counts what the OOM killer ended: the nearest cgroup's, else the machine's."""
    for folder in (cgroup, *cgroup.parents) if cgroup else ():
        if (folder / "memory.events").exists():
            return folder / "memory.events"
    return _VMSTAT


def _oom_kills(counter: Path) -> int | None:
    try:
        for line in counter.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass  # the cgroup is gone
    return None


def _largest_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
