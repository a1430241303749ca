"""Reads main memory and cores of this machine; its GPUs are in `host/machine/gpu_detection.py`."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile
from math import ceil
from pathlib import Path

from vllamad.core.memory import Device, Machine

_CPU_NAMES = ("model name", "CPU implementer", "CPU part", "CPU variant", "stepping")
HOST_SHARE = 0.85  # of main memory: the rest is the kernel's, the page cache's and ours


def machine(
    *, memory: int, cpu_kv_cache: int, gpus: tuple[Device, ...] = (), busy_workers: int = 1
) -> Machine:
    """What workers may use. `memory` is the operator's limit on main memory, 0 for none."""
    host = memory or int(main_memory() * HOST_SHARE)
    return Machine(
        host=host, devices=gpus, cpu_kv_cache=cpu_kv_cache, cores=cores(), busy_workers=busy_workers
    )


def main_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory: the machine's, or what our control group may use if that is less."""
    (total,) = (
        int(line.split()[1]) << 10
        for line in (root / "proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    return min([total, *(int(text) for text in _group_limits(root, "memory.max"))])


def cores(root: Path = Path("/")) -> int:
    """How many cores we may keep busy: those we may run on, or our control groups' share."""
    least = _whole_cores(root, frozenset(os.sched_getaffinity(0)))
    for quota, period in (*_quotas(root), *_old_quotas(root)):
        least = min(least, ceil(quota / period))
    return least


@lru_cache
def _whole_cores(root: Path, own: frozenset[int]) -> int:
    """How many cores the processors `own` belong to: two threads of a core compute as one.

    But both are counted where they are all there is, and where the kernel does not tell.
    """
    folder = root / "sys/devices/system/cpu"
    found: set[str] = set()
    for number in own:
        try:
            found.add((folder / f"cpu{number}/topology/thread_siblings_list").read_text())
        except OSError:
            found.add(str(number))
    return len(found) if len(found) > 1 else len(own)


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time for each so many: cgroups(7), v2."""
    for text in _group_limits(root, "cpu.max"):
        quota, period = text.split()
        yield int(quota), int(period)


def _old_quotas(root: Path) -> Iterator[tuple[int, int]]:
    """The same where the controller is still that of cgroups v1; -1 is no limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    fields = (line.split(":", 2) for line in groups)
    own = next((path for _, names, path in fields if "cpu" in names.split(",")), "")
    top = root / "sys/fs/cgroup/cpu"
    folder = top / own.lstrip("/")
    for group in (folder, *folder.parents):
        try:
            quota, period = (
                int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
            )
        except (OSError, ValueError):
            quota, period = -1, 1  # the group is outside of what we see
        if quota > 0 and period > 0:
            yield quota, period
        if group == top:
            return


def cpu_name(proc: Path = Path("/proc")) -> str:
    """The CPU's model name, else its architecture."""
    for line in (proc / "cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def cpu_key(root: Path = Path("/")) -> str:
    """This kind of CPU in one line: what is measured on one holds for all of its kind.

    Out of the first processor's lines of /proc/cpuinfo, on x86 and ARM; a virtual machine that
    moves to another kind has another.
    """
    fields: dict[str, str] = {}
    try:
        with (root / "proc/cpuinfo").open(errors="replace") as lines:
            for line in takewhile(str.strip, lines):
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    features = " ".join(sorted((fields.get("flags") or fields.get("Features") or "").split()))
    parts = [fields.get(name, "") for name in _CPU_NAMES]
    name = next(filter(None, parts), "") or platform.machine()
    return f"{name} {sha256(repr((*parts, features)).encode()).hexdigest()[:12]}"


def _group_limits(root: Path, name: str) -> Iterator[str]:
    """The limits in file `name` of our control group and of those above it: cgroups(7), v2."""
    top = root / "sys/fs/cgroup"
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # a kernel without control groups
    own = next((line.removeprefix("0::/") for line in groups if line.startswith("0::/")), "")
    folder = top / own
    for group in (folder, *folder.parents):
        try:
            text = (group / name).read_text().strip()
        except OSError:
            text = "max"  # no such controller, or the group is outside of what we see
        if not text.startswith("max"):
            yield text
        if group == top:
            return
