"""What this machine offers, as seen now: main memory and cores; its GPUs are in `host/nvidia.py`.

Must not know models.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from vllamad.core.memory import Device, Machine

HOST_SHARE = 0.85  # of main memory: the rest is the kernel's, the page cache's and ours


def machine(*, memory: int, cpu_kv_cache: int, gpus: tuple[Device, ...] = ()) -> Machine:
    """What workers may use. `memory` is the operator's limit on main memory, 0 for none."""
    host = memory or int(main_memory() * HOST_SHARE)
    return Machine(host=host, devices=gpus, cpu_kv_cache=cpu_kv_cache)


def main_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory: the machine's, or what our control group may use if that is less."""
    (total,) = (
        int(line.split()[1]) << 10
        for line in (root / "proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    return min([total, *(int(text) for text in _group_limits(root, "memory.max"))])


def cores(root: Path = Path("/")) -> int:
    """How many cores we may keep busy: those we may run on, or our control group's share."""
    least = len(os.sched_getaffinity(0))
    for text in _group_limits(root, "cpu.max"):
        quota, period = text.split()
        least = min(least, ceil(int(quota) / int(period)))
    return least


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
