"""How much memory a worker needs, and where it fits.

Sizes are bytes. The machine as it is now comes in as data; nothing here looks at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import floor

from vllamad.core.cpu import NumberTimes, thread_count
from vllamad.core.kv_cache import BLOCK, Layers, Use, longest_admitted, per_token, request_bytes

GIB = 1 << 30

# Measured on vLLM 0.32 (issue 2): interpreter, torch and code of API server, core and worker.
CPU_OVERHEAD = int(1.6 * GIB)
# CUDA context, graphs and activations of a worker that captures the default batch sizes.
GPU_OVERHEAD = 3 * GIB
# vLLM itself leaves this share of a card to others by default (--gpu-memory-utilization 0.92).
GPU_SHARE = 0.92
# Contexts of full length the cache should hold at once, where there is room.
CONTEXTS_WANTED = 4
KV_FLOOR = 4 * GIB
# Tokens of one step: what we give to GPU workers, and vLLM's default on a CPU.
GPU_STEP_TOKENS = 16384
CPU_STEP_TOKENS = 2048
# vLLM plans a GPU's next step while one runs; not so on a CPU.
GPU_STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU: `total` bytes of memory, of which `foreign` are held by processes not ours."""

    index: int
    total: int
    foreign: int = 0
    capability: tuple[int, int] = (0, 0)  # compute capability, as 8, 9; zeros: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What workers may use: GPUs, or, with none, `host` bytes of main memory."""

    host: int
    devices: tuple[Device, ...] = ()
    cpu_kv_cache: int = GIB  # bytes, of a model that is computed in 16 bits
    cores: int = 1
    busy_workers: int = 1  # that may compute at once, and share the cores
    numbers: NumberTimes = field(default_factory=NumberTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one model asks for, whatever the machine."""

    weights: int
    context_length: int
    cache: tuple[Layers, ...] = ()  # what its layers keep; empty: not known, or nothing
    kv_element: int = 2  # bytes of a cached number, of the type the model computes in
    gpus: int = 1  # tensor parallel size
    utilization: float = 0.0  # an operator's share of each card, in place of a plan

    @property
    def kv_per_token(self) -> int:
        """Bytes of cache one token takes over all GPUs, before any window is full."""
        return per_token(self.cache, self.kv_element)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a worker goes and what it takes there; `devices` is empty on a CPU."""

    devices: tuple[int, ...]
    per_device: int  # on a CPU: of main memory
    kv_cache: int  # over all devices
    share: float = 0.0  # that is of a device, the largest where they differ
    threads: int = 0  # that compute, on a CPU

    @property
    def total(self) -> int:
        return self.per_device * max(1, len(self.devices))


def find_placement(need: Need, machine: Machine, taken: Iterable[Placement]) -> Placement | None:
    """Find room for `need` beside the placements in `taken`, or say there is none."""
    taken = tuple(taken)
    if machine.devices:
        return _place_on_gpus(need, machine, taken)
    wanted = least_memory(need, machine)
    if wanted > machine.host - sum(other.total for other in taken):
        return None
    return Placement(
        devices=(),
        per_device=wanted,
        kv_cache=_cpu_cache(need, machine),
        threads=thread_count(machine.cores, machine.busy_workers),
    )


def largest_room(machine: Machine) -> int:
    """What one worker could have if every other one left: the figure refusals name."""
    if not machine.devices:
        return machine.host
    return max(_room(device, {}) for device in machine.devices)


def least_memory(need: Need, machine: Machine) -> int:
    """The smallest amount `need` can live with on one device, or in main memory."""
    if not machine.devices:
        return need.weights + _cpu_cache(need, machine) + CPU_OVERHEAD
    return _fixed(need) + _kv_least(need)


def longest_context(need: Need, machine: Machine) -> int:
    """The tokens, up to those of `need`, that the engine admits were it alone on the machine.

    0 where none fit on its GPUs. On a CPU at least one block does: the cache grows for it.
    """
    if not machine.devices:
        room = _cpu_cache_set(need, machine)
        held = longest_admitted(need.cache, need.context_length, room, _cpu_use(need))
        return held or min(need.context_length, BLOCK)
    devices = _roomiest(need, machine, {})
    if len(devices) < need.gpus:
        return 0
    room = min(_room(device, {}) for device in devices)
    if need.utilization:
        room = int(need.utilization * min(device.total for device in devices))
    return longest_admitted(need.cache, need.context_length, room - _fixed(need), _gpu_use(need))


def _place_on_gpus(need: Need, machine: Machine, taken: tuple[Placement, ...]) -> Placement | None:
    used: dict[int, int] = {}
    for other in taken:
        for index in other.devices:
            used[index] = used.get(index, 0) + other.per_device
    roomiest = _roomiest(need, machine, used)
    if len(roomiest) < need.gpus:
        return None
    room = min(_room(device, used) for device in roomiest)
    per_device = _share_of(need, room, roomiest)
    if per_device is None:
        return None
    return Placement(
        devices=tuple(sorted(device.index for device in roomiest)),
        per_device=per_device,
        kv_cache=max(0, per_device - _fixed(need)) * need.gpus,
        share=floor(1000 * per_device / max(1, *(device.total for device in roomiest))) / 1000,
    )


def _roomiest(need: Need, machine: Machine, used: Mapping[int, int]) -> list[Device]:
    return sorted(machine.devices, key=lambda device: -_room(device, used))[: need.gpus]


def _share_of(need: Need, room: int, devices: list[Device]) -> int | None:
    if need.utilization:
        asked = int(need.utilization * min(device.total for device in devices))
        return asked if asked <= room else None
    if _fixed(need) + _kv_least(need) > room:
        return None
    return min(room, _fixed(need) + _kv_wanted(need))


def _fixed(need: Need) -> int:
    return need.weights // need.gpus + GPU_OVERHEAD


def _kv_least(need: Need) -> int:
    """Bytes on each GPU that hold the whole context once."""
    return request_bytes(need.cache, need.context_length, _gpu_use(need))


def _cpu_cache(need: Need, machine: Machine) -> int:
    """Bytes of cache on a CPU: what is set, or what one block takes where that admits none."""
    one = request_bytes(need.cache, min(need.context_length, BLOCK), _cpu_use(need))
    return max(_cpu_cache_set(need, machine), one)


def _cpu_cache_set(need: Need, machine: Machine) -> int:
    """As many tokens in 32 bits as in 16."""
    return machine.cpu_kv_cache * (2 if need.kv_element == 4 else 1)


def _cpu_use(need: Need) -> Use:
    return Use(element=need.kv_element, in_flight=CPU_STEP_TOKENS)


def _gpu_use(need: Need) -> Use:
    return Use(gpus=need.gpus, element=need.kv_element, in_flight=GPU_STEPS * GPU_STEP_TOKENS)


def _kv_wanted(need: Need) -> int:
    return max(KV_FLOOR, CONTEXTS_WANTED * _kv_least(need))


def _room(device: Device, used: Mapping[int, int]) -> int:
    return int(device.total * GPU_SHARE) - device.foreign - used.get(device.index, 0)
