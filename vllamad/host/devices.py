"""What this machine offers, as seen now: memory of GPUs and host, cores.

Must not know models. Synchronous: NVML answers in milliseconds, callers on the loop use a thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from vllamad.core.memory import Device, Machine

HOST_SHARE = 0.85  # of main memory: the rest is the kernel's, the page cache's and ours


def machine(*, device: str, memory: int, cpu_kv_cache: int) -> Machine:
    """What workers may use. `memory` is the operator's limit on main memory, 0 for none."""
    host = memory or int(main_memory() * HOST_SHARE)
    devices = gpus() if device == "cuda" else ()
    return Machine(host=host, devices=devices, cpu_kv_cache=cpu_kv_cache)


def gpus() -> tuple[Device, ...]:
    """Every NVIDIA GPU in PCI order, or none where the driver does not answer."""
    import pynvml  # here: it loads the driver's library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_gpu(index) for index in range(int(pynvml.nvmlDeviceGetCount())))
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Device:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # pyright: ignore[reportUnknownMemberType]
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # pyright: ignore[reportUnknownMemberType]
    return Device(index=index, total=int(memory.total), foreign=int(memory.used))


def main_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory: the machine's, or what our control group may use if that is less."""
    total = 0
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) << 10
    try:
        limit = (root / "sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return total if limit == "max" else min(total, int(limit))


def cores() -> int:
    """How many cores we may run on."""
    return len(os.sched_getaffinity(0))
