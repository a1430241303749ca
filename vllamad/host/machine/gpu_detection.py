"""Finds the NVIDIA GPUs that may be used, or what is missing: card, driver, device node, library.

It never waits. Synchronous: NVML answers in milliseconds where the driver is
loaded, callers on the loop use a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vllamad.core.memory import Device

_VENDOR = "0x10de"
_DISPLAY = "0x03"  # the class of VGA, 3D and other display controllers
_MISMATCH = "version mismatch"  # the library is newer than the module in the kernel
_CONTROL, _UVM, _WSL = "dev/nvidiactl", "dev/nvidia-uvm", "dev/dxg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """The GPUs that may be used, in PCI order; if there are none, why not."""

    devices: tuple[Device, ...] = ()
    missing: str = ""
    may_come: bool = False  # the card is there, and its driver may still be loading
    reboot: bool = False  # the card is there, and unusable until the machine is rebooted


class Driver(NamedTuple):
    version: str  # as NVIDIA numbers it: 580.65.06
    cuda: int  # the newest CUDA it has, 13000 for 13.0


def look(visible: str | None = None, root: Path = Path("/")) -> Gpus:
    """Every GPU that answers and that `visible`, a CUDA_VISIBLE_DEVICES, does not hide."""
    if missing := _before_the_library(root):
        return missing
    found, problem = _ask_the_driver()
    if _MISMATCH in problem.lower():
        return Gpus(
            missing=f"the NVIDIA driver was updated while it ran: reboot (NVML says: {problem})",
            reboot=True,
        )
    if problem:
        return Gpus(missing=f"NVML says: {problem}", may_come=True)
    if not found:
        return Gpus(missing="NVML finds no GPU", may_come=True)
    devices = _visible(found, visible)
    if not devices:
        return Gpus(missing=f"CUDA_VISIBLE_DEVICES={visible} hides every GPU from vllamad")
    if not (root / _UVM).exists() and not (root / _WSL).exists():
        return Gpus(missing=f"the driver is not fully loaded: /{_UVM} is missing", may_come=True)
    return Gpus(devices=tuple(devices))


def driver() -> Driver | None:
    """The driver that is loaded; None where none answers."""
    import pynvml  # here: it loads the driver's library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        version = pynvml.nvmlSystemGetDriverVersion()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return Driver(str(version), int(cuda))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def cards(root: Path = Path("/")) -> list[str]:
    """The PCI addresses of NVIDIA's display controllers, whether or not a driver serves them."""
    folder = root / "sys/bus/pci/devices"
    try:
        addresses = sorted(path.name for path in folder.iterdir())
    except OSError:
        return []  # no PCI here, or it is hidden from us
    return [
        address
        for address in addresses
        if _word(folder / address / "vendor") == _VENDOR
        and _word(folder / address / "class").startswith(_DISPLAY)
    ]


def _before_the_library(root: Path) -> Gpus | None:
    """What is missing that shows without loading the driver's library."""
    if (root / _WSL).exists() or (root / _CONTROL).exists():
        return None
    if cards(root):
        return Gpus(missing=f"the driver is not loaded: /{_CONTROL} is missing", may_come=True)
    return Gpus(missing="there is no NVIDIA GPU on the PCI bus")


def _ask_the_driver() -> tuple[list[_Gpu], str]:
    """Every GPU that answers; or what NVML says instead."""
    import pynvml  # here: it loads the driver's library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], str(error)
    try:
        found = (_gpu(index) for index in range(int(pynvml.nvmlDeviceGetCount())))
        return [gpu for gpu in found if gpu is not None], ""
    except pynvml.NVMLError as error:
        return [], str(error)
    finally:
        pynvml.nvmlShutdown()


class _Gpu(NamedTuple):
    uuid: str
    device: Device


def _gpu(index: int) -> _Gpu | None:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # pyright: ignore[reportUnknownMemberType]
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # pyright: ignore[reportUnknownMemberType]
        uuid = str(pynvml.nvmlDeviceGetUUID(handle))  # pyright: ignore[reportUnknownMemberType]
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)  # pyright: ignore[reportUnknownMemberType]
    except pynvml.NVMLError:  # it has fallen off the bus: the others still work
        return None
    device = Device(
        index=index,
        total=int(memory.total),
        foreign=int(memory.used),
        capability=(int(capability[0]), int(capability[1])),
    )
    return _Gpu(uuid, device)


def _visible(found: Sequence[_Gpu], text: str | None) -> list[Device]:
    """Those that `text` names, by number or by the beginning of a UUID.

    As CUDA reads it: what follows the first word that names none, or one again, is not read.
    """
    if text is None:
        return [gpu.device for gpu in found]
    chosen: list[Device] = []
    for word in (word.strip() for word in text.split(",")):
        named = [gpu.device for gpu in found if _names(word, gpu)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return sorted(chosen, key=lambda device: device.index)


def _names(word: str, gpu: _Gpu) -> bool:
    if word.isdecimal():
        return int(word) == gpu.device.index
    return bool(word) and gpu.uuid.startswith(word)


def _word(path: Path) -> str:
    try:
        return path.read_text().strip().lower()
    except OSError:
        return ""
