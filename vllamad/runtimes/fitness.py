"""Checks whether this machine can run a build of vLLM, before gigabytes are downloaded.

The needs of vLLM 0.32's wheels, read from their libraries: `_C_AVX2` has AVX2, FMA and F16C
instructions; `_C_AVX512`, chosen for CPUs with avx512f, has BW, DQ and VL instructions too; `_C`,
chosen for CPUs with avx512_bf16, has VNNI instructions. The CUDA wheel is built for CUDA 13.
"""

from __future__ import annotations

import platform
import re

from vllamad.core.memory import GIB, Device
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import gpu_detection
from vllamad.host.machine.amx import cpu_flags

_NEEDED = (
    ("", ("avx2", "fma", "f16c")),
    ("avx512f", ("avx512bw", "avx512dq", "avx512vl")),
    ("avx512_bf16", ("avx512_vnni",)),
)
_CUDA = 13000  # as NVML counts: 1000 a major version, 10 a minor one
_DRIVER = "580"  # the first with CUDA 13
_CAPABILITY = (7, 5)
_CUDA_13_SINCE = (0, 24)  # of older versions the CUDA version is unknown
_TRIAL_MEMORY = 3 * GIB // 2  # bytes of a card: contexts, kernels, a tiny model and its graphs


def refuse_unfit_cpu(
    machine: str = platform.machine(), flags: frozenset[str] | None = None
) -> None:
    """Raise RuntimeProblem where this CPU lacks instructions that vLLM's CPU build uses."""
    if machine != "x86_64":
        return
    flags = cpu_flags() if flags is None else flags
    missing = [
        name
        for seen, needed in _NEEDED
        for name in needed
        if (not seen or seen in flags) and name not in flags
    ]
    if missing:
        raise RuntimeProblem(
            f"cannot install a cpu runtime: this CPU lacks {', '.join(missing)}, which vLLM's"
            " build for CPUs needs",
            hint="in a virtual machine, pass the host's CPU through (QEMU: -cpu host)",
        )


def refuse_unfit_cards(version: str) -> None:
    """Raise RuntimeProblem where no GPU, or its driver, can run vLLM `version` for CUDA."""
    found = gpu_detection.look()
    if not found.devices:
        raise RuntimeProblem(
            f"cannot install a cuda runtime: {found.missing}",
            hint="install the CPU build with --cpu",
        )
    known = [device.capability for device in found.devices if any(device.capability)]
    if known and (best := max(known)) < _CAPABILITY:
        raise RuntimeProblem(
            f"cannot install a cuda runtime: it needs a GPU of compute capability"
            f" {_dotted(_CAPABILITY)} or more, the best here has {_dotted(best)}",
            hint="install the CPU build with --cpu",
        )
    if not _is_for_cuda_13(version):
        return
    driver = gpu_detection.driver()
    if driver and driver.cuda < _CUDA:
        raise RuntimeProblem(
            f"cannot install vllm {version}: it is built for CUDA 13, which needs NVIDIA driver"
            f" {_DRIVER} or newer; this machine has driver {driver.version}, for CUDA"
            f" {_cuda(driver.cuda)}",
            hint="update the driver, or install an older vLLM with --version, or the CPU build with"
            " --cpu",
        )


def trial_gpu(visible: str | None) -> tuple[Device, float]:
    """The emptiest GPU, and the share of its memory for a trial. Raises RuntimeProblem."""
    found = gpu_detection.look(visible)
    if not found.devices:
        raise RuntimeProblem(f"cannot try the engine: {found.missing}")
    card = max(found.devices, key=lambda device: device.total - device.foreign)
    return card, round(min(0.9, _TRIAL_MEMORY / card.total), 4)


def _is_for_cuda_13(version: str) -> bool:
    """Whether the wheel is built for CUDA 13; a build for another CUDA has a suffix after a +."""
    number, _, build = version.partition("+")
    parts = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    return parts >= _CUDA_13_SINCE and not re.match(r"cu(?!13)", build)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
