"""One cgroup for each worker: it is made, measured, and emptied here.

Needs cgroup2 and a part of it that is delegated to us, as systemd's Delegate=yes does.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import trio

from vllamad.errors import HostProblem

SUPERVISOR = "supervisor"  # of the supervisor and the shims, which must survive the end of a worker
_CONTROL = ".control"  # of processes that systemd runs beside the main process
_WORKER = "worker-"
_PAUSE = 0.02  # seconds between two checks of a cgroup that is being emptied: it takes about 30 ms


def claim(*, keep_workers: bool, proc: Path = Path("/proc/self")) -> Cgroups:
    """Take the delegated part of the tree, and move this process into a cgroup of its own.

    With `keep_workers`, workers may outlive this process. Raises HostProblem with the reason.
    """
    mountinfo, own = (proc / "mountinfo").read_text(), (proc / "cgroup").read_text()
    folder = folder_of(mountinfo, own)
    if folder is None:
        raise HostProblem("no cgroup2 is mounted for us")
    placed = folder.name == SUPERVISOR  # systemd's DelegateSubgroup= has done it
    top = folder.parent if placed or folder.name == _CONTROL else folder
    if not _is_delegated(top):
        raise HostProblem(f"{top} is not delegated", hint="the unit needs Delegate=yes")
    try:
        (top / SUPERVISOR).mkdir(exist_ok=True)
        (top / SUPERVISOR / "cgroup.procs").write_text("0")
    except OSError as problem:
        raise HostProblem(f"cannot use {top}: {problem.strerror}") from problem
    # A cgroup that hands out controllers cannot hold a process itself. systemd could not restart us
    # while workers run on, unless it starts us in a cgroup below.
    return Cgroups(top, memory=(placed or not keep_workers) and _enable(top, "memory"))


def folder_of(mountinfo: str, own: str) -> Path | None:
    """The folder of a process's cgroup, from its /proc/PID/mountinfo and /proc/PID/cgroup."""
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::/")), None)
    if path is None:
        return None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] != "cgroup2":
            continue
        _, _, _, root, point, *_ = before.split(" ")
        inside = PurePosixPath(path)
        if inside.is_relative_to(root):
            return Path(_unescaped(point)) / inside.relative_to(root)
    return None


def unit_of(own: str) -> tuple[str, bool]:
    """The systemd unit a process is part of and whether it is a user's own; the unit may be ""."""
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::/")), "")
    parts = PurePosixPath(path).parts
    units = [part for part in parts if part.endswith((".service", ".scope"))]
    return (units[-1] if units else ""), any(part.startswith("user@") for part in parts[:-1])


class Cgroups:
    """The delegated part of the tree; `memory` says whether memory is counted and limited."""

    def __init__(self, top: Path, *, memory: bool) -> None:
        self.top = top
        self.memory = memory

    def make(self, name: str, *, memory_max: int = 0) -> Cgroup:
        """An empty cgroup for the worker `name`. Raises HostProblem."""
        cgroup = Cgroup(self.top / (_WORKER + name), memory_max)
        try:
            cgroup.path.mkdir(exist_ok=True)
            if self.memory:
                cgroup.limit()
        except OSError as problem:
            raise HostProblem(f"cannot make {cgroup.path}: {problem.strerror}") from problem
        return cgroup

    def find(self, name: str) -> Cgroup | None:
        """The cgroup of a worker that a previous daemon has started, if it has one."""
        folder = self.top / (_WORKER + name)
        return Cgroup(folder, _number(folder / "memory.max") or 0) if folder.exists() else None

    async def sweep(self, in_use: Collection[str], *, limit: float) -> list[str]:
        """Empty and remove the cgroups of other workers; return those that had processes."""
        populated: list[str] = []
        for folder in sorted(self.top.glob(_WORKER + "*")):
            name, cgroup = folder.name.removeprefix(_WORKER), Cgroup(folder, 0)
            if name in in_use:
                continue
            if cgroup.populated():
                populated.append(name)
            with trio.move_on_after(limit):
                await cgroup.end()
            cgroup.remove()
        return populated


class Cgroup:
    """The cgroup of one worker. A value the kernel does not count is None or 0."""

    def __init__(self, path: Path, memory_max: int) -> None:
        self.path = path
        self.memory_max = memory_max

    def limit(self) -> None:
        """Set its limits; a worker that runs out of memory is killed as a whole."""
        (self.path / "memory.oom.group").write_text("1")
        if self.memory_max:
            (self.path / "memory.max").write_text(str(self.memory_max))
            swap = self.path / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")

    def populated(self) -> bool:
        """Whether a process is in it."""
        return _table(self.path / "cgroup.events").get("populated", 0) > 0

    def pids(self) -> list[int]:
        """The processes in it."""
        try:
            return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    async def end(self) -> None:
        """Kill its processes, and return when none is left."""
        while self.populated():
            self._kill()
            await trio.sleep(_PAUSE)

    def remove(self) -> None:
        """Remove it, unless a process is in it."""
        try:
            self.path.rmdir()
        except OSError:
            pass  # in use, or removed already

    def memory(self) -> int | None:
        """Bytes it holds; of the files it has read, only those in use."""
        current = _number(self.path / "memory.current")
        if current is None:
            return None
        return max(0, current - _table(self.path / "memory.stat").get("inactive_file", 0))

    def memory_peak(self) -> int | None:
        return _number(self.path / "memory.peak")

    def cpu(self) -> float | None:
        """Seconds of processor time it has used."""
        used = _table(self.path / "cpu.stat").get("usage_usec")
        return None if used is None else used / 1e6

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed in it for lack of memory."""
        return _table(self.path / "memory.events").get("oom_kill", 0) > 0

    def _kill(self) -> None:
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            pass  # Linux before 5.14, or gone


def _is_delegated(folder: Path) -> bool:
    """Whether systemd marked it as delegated: a writable cgroup need not be ours."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            pass  # not set, or not ours to read
    return False


def _enable(top: Path, controller: str) -> bool:
    try:
        if controller not in (top / "cgroup.controllers").read_text().split():
            return False
        (top / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError:
        return False  # a process of another program is in the top
    return True


def _unescaped(point: str) -> str:
    r"""A mount point as the kernel prints it: blanks and the like are \040."""
    return point.encode().decode("unicode_escape") if "\\" in point else point


def _table(path: Path) -> dict[str, int]:
    """A file of `key number` lines; empty if it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
