"""Requests permission to use AMX, once in each Python process that may run engine code.

Linux lets a process use AMX tiles only after it has asked (Documentation/arch/x86/xstate.rst); a
fork inherits the permission, exec loses it. The engine picks its AMX kernels where the CPU lists
`amx_tile` and never asks: its first tile instruction ends it with SIGILL. A hypervisor may list
the feature without enabling it; there the engine must see a CPU without AMX.

Also loaded by its path, in the runtime's Python: standard library only, nothing of ours.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

ABSENT = "not on this CPU"
GIVEN = "asked and given"
REFUSED = "asked and refused"
UNWANTED = "kept away by ONEDNN_MAX_CPU_ISA"

_LIMIT = "ONEDNN_MAX_CPU_ISA"  # oneDNN's own; the rest of the engine follows it here
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def request() -> bool:
    """Request AMX tiles for this process; return whether the kernel grants them."""
    kernel = ctypes.CDLL(None, use_errno=True)
    return kernel.syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0


def ask(
    request: Callable[[], bool] = request,
    machine: str = platform.machine(),
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> str:
    """Ask for AMX where the CPU lists it. Returns ABSENT, GIVEN, REFUSED or UNWANTED."""
    if machine != "x86_64" or "amx_tile" not in cpu_flags(cpuinfo):
        return ABSENT
    limit = os.environ.get(_LIMIT, "").upper()
    if limit not in ("", "ALL", "DEFAULT") and "AMX" not in limit:
        return UNWANTED
    return GIVEN if request() else REFUSED


def settle(asking: Callable[[], str] = ask) -> str:
    """Request AMX, and hide it from the engine in this process if it may not be used."""
    answer = asking()
    if answer in (REFUSED, UNWANTED):
        _hide()
        print(f"AMX: {answer}; the engine does without", file=sys.stderr, flush=True)
    return answer


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The features that the first CPU lists; none where they are not listed as on x86."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(listed.partition(":")[2].split())


def _hide() -> None:
    """Have torch and oneDNN say that this CPU has no AMX; vLLM asks torch by these functions."""
    os.environ.setdefault(_LIMIT, "AVX512_CORE_FP16")  # the most it knows without AMX
    cpu = importlib.import_module("torch.cpu")

    def no() -> bool:
        return False

    for name in [name for name in dir(cpu) if name.startswith("_is_amx_")]:
        setattr(cpu, name, no)
    all_of_them: Callable[[], dict[str, object]] | None = getattr(cpu, "get_capabilities", None)
    if all_of_them is None:  # an older torch
        return

    def get_capabilities() -> dict[str, object]:
        return {
            name: False if name.startswith("amx_") else value
            for name, value in all_of_them().items()
        }

    setattr(cpu, "get_capabilities", get_capabilities)  # noqa: B010
