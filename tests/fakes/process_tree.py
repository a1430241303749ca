"""A worker's process tree as vLLM has it: a leader, a child, a stray in its own session."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio

from vllamad.host.processes import shim
from vllamad.host.processes.cgroup import Cgroup
from vllamad.host.processes.process_group import Launch, ProcessGroup

# A worker in the manner of vLLM: a leader, a child in its group, and one that forked twice into a
# session of its own. Says who they are on its last line.
TREE = """
import os, signal, sys, time
def child(title, escape=False):
    pid = os.fork()
    if pid == 0:
        if escape:
            os.setsid()
            if os.fork():
                os._exit(0)
        with open(f"{title}.pid", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{title}.pid", f"{title}.ready")
        while True:
            time.sleep(1000)
    return pid
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child("core")
os.waitpid(child("stray", escape=True), 0)
with open("leader.pid", "w") as file:
    file.write(str(os.getpid()))
os.rename("leader.pid", "leader.ready")
while True:
    time.sleep(1000)
"""
PARTS = ("leader", "core", "stray")


def launch(folder: Path, *argv: str, **env: str) -> Launch:
    return Launch(argv=argv, env=env, cwd=folder, log_path=folder / "log")


def tree(folder: Path, *options: str, cgroup: Cgroup | None = None) -> Launch:
    plain = launch(folder, sys.executable, "-S", "-c", TREE, *options)
    return replace(plain, cgroup=cgroup)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - other processes do not set our events
        await trio.sleep(0.01)


async def pids_of_tree(folder: Path) -> dict[str, int]:
    await until(lambda: all((folder / f"{part}.ready").exists() for part in PARTS))
    return {part: int((folder / f"{part}.ready").read_text()) for part in PARTS}


def alive(pids: dict[str, int]) -> dict[str, int]:
    return {part: pid for part, pid in pids.items() if Path(f"/proc/{pid}").exists()}


def shim_of(group: ProcessGroup) -> int:
    return next(p.parent for p in shim.processes() if p.pid == group.pid)
