"""Inspects processes, and ends those that a killed shim has left to the supervisor.

Orphans become children of the supervisor only when a shim is killed. Their session tells them from
our own children, so this process must never start a child with a session of its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from functools import partial

import trio

from vllamad.host.processes import shim
from vllamad.host.processes.process_endings import exit_code
from vllamad.host.tasks import first_of


def pid_of(pidfd: int) -> int:
    """The process a pidfd stands for, -1 if it is gone; ValueError if it is no pidfd."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line[4:])
    raise ValueError(f"descriptor {pidfd} is no pidfd")


async def first_exit(pids: Iterable[int]) -> tuple[int, int | None]:
    """Wait until one of these, ours or not, has ended: its pid, and its exit code if known."""
    return await first_of(*(partial(_ended, pid) for pid in pids))


async def _ended(pid: int) -> tuple[int, int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid, None
    try:
        await trio.lowlevel.wait_readable(descriptor)
        return pid, exit_code(pid, descriptor)
    finally:
        os.close(descriptor)


async def end_strays() -> None:
    """Kill and reap the processes that a killed shim left, at any depth."""
    while kill_strays():  # noqa: ASYNC110 - several may die behind one SIGCHLD
        await trio.sleep(0.01)


def kill_strays() -> list[int]:
    """Kill and reap the children that we did not start; empty when there were none."""
    found = _strays()
    for process in found:
        shim.kill(process)
        os.waitpid(process.pid, os.WNOHANG)
    return [process.pid for process in found]


def strays() -> list[int]:
    """List the children that we did not start."""
    return [process.pid for process in _strays()]


def _strays() -> list[shim.Process]:
    # A worker's leader begins with setsid, and from there no process comes back to our session.
    session = os.getsid(0)
    return [
        process
        for process in shim.processes()
        if process.parent == os.getpid() and process.session != session
    ]


def shared_memory(pids: Collection[int]) -> set[str]:
    """The shared memory files that these processes and their descendants would leave."""
    if not pids:
        return set()
    tree = [process for process in shim.processes() if process.pid in pids]
    return shim.shared_memory(tree + [below for pid in pids for below in shim.descendants(pid)])


def remove(paths: Iterable[str]) -> None:
    for path in paths:
        shim.remove(path)


def pss(pid: int) -> int:
    """Bytes of memory a process holds, those it shares with others divided among them."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next(
                (int(line.split()[1]) << 10 for line in file if line.startswith(b"Pss:")), 0
            )
    except OSError:
        return 0  # it has just gone
