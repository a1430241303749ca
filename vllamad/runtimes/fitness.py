"""Whether this machine can run a build of vLLM: asked before gigabytes are fetched.

What vLLM 0.32's wheels need, read from their libraries: `_C_AVX2` has AVX2, FMA and F16C
instructions, `_C_AVX512` is chosen for every CPU with avx512f and has BW, DQ and VL ones too, `_C`
for every one with avx512_bf16 and has VNNI ones. The CUDA wheel is built for CUDA 13.
"""

from __future__ import annotations

import platform
import re

from vllamad.core.memory import GIB, Device
from vllamad.errors import RuntimeProblem
from vllamad.host import gpu_detection
from vllamad.host.amx import cpu_flags

_NEEDED = (
    ("", ("avx2", "fma", "f16c")),
    ("avx512f", ("avx512bw", "avx512dq", "avx512vl")),
    ("avx512_bf16", ("avx512_vnni",)),
)
_CUDA = 13000  # as NVML counts: 1000 a major version, 10 a minor one
_DRIVER = "580"  # the first that has it
_CAPABILITY = (7, 5)
_CUDA_13_SINCE = (0, 24)  # older versions: not known
_TRIAL_MEMORY = 3 * GIB // 2  # bytes of a card: contexts, kernels, a tiny model and its graphs


def refuse_unfit_cpu(
    machine: str = platform.machine(), flags: frozenset[str] | None = None
) -> None:
    """Raise RuntimeProblem where vLLM's build for CPUs has instructions that this one lacks."""
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
            hint="in a virtual machine, have it show the host's CPU (QEMU: -cpu host)",
        )


def refuse_unfit_cards(version: str) -> None:
    """Raise RuntimeProblem where no card, or its driver, can run vLLM `version` for CUDA."""
    found = gpu_detection.look()
    if not found.devices:
        raise RuntimeProblem(
            f"cannot install a cuda runtime: {found.missing}", hint="--cpu needs no GPU"
        )
    known = [device.capability for device in found.devices if any(device.capability)]
    if known and (best := max(known)) < _CAPABILITY:
        raise RuntimeProblem(
            f"cannot install a cuda runtime: it needs a GPU of compute capability"
            f" {_dotted(_CAPABILITY)} or more, the best here has {_dotted(best)}",
            hint="--cpu needs no GPU",
        )
    if not _is_for_cuda_13(version):
        return
    driver = gpu_detection.driver()
    if driver and driver.cuda < _CUDA:
        raise RuntimeProblem(
            f"cannot install vllm {version}: it is built for CUDA 13, which needs NVIDIA driver"
            f" {_DRIVER} or newer; here is driver {driver.version}, for CUDA {_cuda(driver.cuda)}",
            hint="update the driver, or install --cpu, or an older one with --version",
        )


def trial_gpu(visible: str | None) -> tuple[Device, float]:
    """The emptiest card, and the share of its memory a trial asks for. Raises RuntimeProblem."""
    found = gpu_detection.look(visible)
    if not found.devices:
        raise RuntimeProblem(f"cannot try the engine: {found.missing}")
    card = max(found.devices, key=lambda device: device.total - device.foreign)
    return card, round(min(0.9, _TRIAL_MEMORY / card.total), 4)


def _is_for_cuda_13(version: str) -> bool:
    """Whether that version's wheel is known to be: a build for another CUDA says so behind a +."""
    number, _, build = version.partition("+")
    parts = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    return parts >= _CUDA_13_SINCE and not re.match(r"cu(?!13)", build)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
