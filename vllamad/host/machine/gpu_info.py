"""Describes each NVIDIA GPU for display; which may be used is decided in `gpu_detection.py`.

Synchronous; needs no daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU; bytes of memory, and the compute capability as NVIDIA writes it: 9.0."""

    index: int
    name: str
    memory_total: int
    memory_free: int
    compute_capability: str


class Cards(NamedTuple):
    driver: str  # its version; empty where it does not answer
    cards: tuple[Card, ...]


def describe() -> Cards:
    """Every GPU that answers; none where there is no driver."""
    import pynvml  # here: it loads the driver's library

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Cards("", ())
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        found = (_card(index) for index in range(count))
        driver = _text(pynvml.nvmlSystemGetDriverVersion())  # pyright: ignore[reportUnknownMemberType]
        return Cards(driver, tuple(card for card in found if card is not None))
    except pynvml.NVMLError:
        return Cards("", ())
    finally:
        pynvml.nvmlShutdown()


def _card(index: int) -> Card | None:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # pyright: ignore[reportUnknownMemberType]
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)  # pyright: ignore[reportUnknownMemberType]
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        name = _text(pynvml.nvmlDeviceGetName(handle))  # pyright: ignore[reportUnknownMemberType]
    except pynvml.NVMLError:  # it has fallen off the bus
        return None
    return Card(
        index=index,
        name=name,
        memory_total=int(memory.total),
        memory_free=int(memory.free),
        compute_capability=f"{major}.{minor}",
    )


def _text(value: object) -> str:
    """Older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
