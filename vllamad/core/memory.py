"""The memory that a worker needs, and its placement on GPUs or in main memory.

Sizes are bytes. The state of the machine comes in as data.
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
# The share of a GPU that vLLM uses by default (--gpu-memory-utilization 0.92).
GPU_SHARE = 0.92
# Contexts of full length that the cache holds at once, where there is room.
CONTEXTS_WANTED = 4
KV_FLOOR = 4 * GIB
# Tokens of one step: our setting for GPU workers, and vLLM's default on a CPU.
GPU_STEP_TOKENS = 16384
CPU_STEP_TOKENS = 2048
# vLLM plans the next step of a GPU while one runs; on a CPU it does not.
GPU_STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU: `total` bytes of memory, of which other programs hold `foreign`."""

    index: int
    total: int
    foreign: int = 0
    capability: tuple[int, int] = (0, 0)  # compute capability, as 8, 9; zeros: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The memory that workers may use: of GPUs, or `host` bytes of main memory without GPUs."""

    host: int
    devices: tuple[Device, ...] = ()
    cpu_kv_cache: int = GIB  # bytes, for a model that computes in 16 bits
    cores: int = 1
    busy_workers: int = 1  # workers that may compute at once, and share the cores
    numbers: NumberTimes = field(default_factory=NumberTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The needs of one model on any machine."""

    weights: int
    context_length: int
    cache: tuple[Layers, ...] = ()  # empty: unknown, or nothing is cached
    kv_element: int = 2  # bytes of a cached number
    gpus: int = 1  # tensor parallel size
    utilization: float = 0.0  # the operator's share of each GPU; 0: planned here

    @property
    def kv_per_token(self) -> int:
        """Bytes of cache of one token over all GPUs, before any window is full."""
        return per_token(self.cache, self.kv_element)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The GPUs of a worker and the memory it takes; `devices` is empty on a CPU."""

    devices: tuple[int, ...]
    per_device: int  # on a CPU: of main memory
    kv_cache: int  # over all devices
    share: float = 0.0  # `per_device` as a share of a device, the largest where they differ
    threads: int = 0  # computing threads on a CPU

    @property
    def total(self) -> int:
        return self.per_device * max(1, len(self.devices))


def find_placement(need: Need, machine: Machine, taken: Iterable[Placement]) -> Placement | None:
    """Find room for `need` beside the placements in `taken`; None if there is not enough."""
    taken = tuple(taken)
    if machine.devices:
        return _place_on_gpus(need, machine, taken)
    memory = least_memory(need, machine)
    if memory > machine.host - sum(other.total for other in taken):
        return None
    return Placement(
        devices=(),
        per_device=memory,
        kv_cache=_cpu_cache(need, machine),
        threads=thread_count(machine.cores, machine.busy_workers),
    )


def largest_room(machine: Machine) -> int:
    """The memory of one worker that is alone on the machine; refusals name it."""
    if not machine.devices:
        return machine.host
    return max(_room(device, {}) for device in machine.devices)


def least_memory(need: Need, machine: Machine) -> int:
    """The smallest memory that `need` runs with, on each device or in main memory."""
    if not machine.devices:
        return need.weights + _cpu_cache(need, machine) + CPU_OVERHEAD
    return _fixed(need) + _kv_least(need)


def longest_context(need: Need, machine: Machine) -> int:
    """The tokens, up to those of `need`, that the engine admits if it is alone on the machine.

    0 if no block fits on its GPUs. On a CPU one block always fits: the cache grows for it.
    """
    if not machine.devices:
        room = _cpu_cache_set(need, machine)
        admitted = longest_admitted(need.cache, need.context_length, room, _cpu_use(need))
        return admitted or min(need.context_length, BLOCK)
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
        share = int(need.utilization * min(device.total for device in devices))
        return share if share <= room else None
    if _fixed(need) + _kv_least(need) > room:
        return None
    return min(room, _fixed(need) + _kv_wanted(need))


def _fixed(need: Need) -> int:
    return need.weights // need.gpus + GPU_OVERHEAD


def _kv_least(need: Need) -> int:
    """Bytes of cache on each GPU for one context of full length."""
    return request_bytes(need.cache, need.context_length, _gpu_use(need))


def _cpu_cache(need: Need, machine: Machine) -> int:
    """Bytes of cache on a CPU: the setting, or one_block block where the setting admits none."""
    one_block = request_bytes(need.cache, min(need.context_length, BLOCK), _cpu_use(need))
    return max(_cpu_cache_set(need, machine), one_block)


def _cpu_cache_set(need: Need, machine: Machine) -> int:
    """The setting, doubled in 32 bits so that it holds as many tokens."""
    return machine.cpu_kv_cache * (2 if need.kv_element == 4 else 1)


def _cpu_use(need: Need) -> Use:
    return Use(element=need.kv_element, in_flight=CPU_STEP_TOKENS)


def _gpu_use(need: Need) -> Use:
    return Use(gpus=need.gpus, element=need.kv_element, in_flight=GPU_STEPS * GPU_STEP_TOKENS)


def _kv_wanted(need: Need) -> int:
    return max(KV_FLOOR, CONTEXTS_WANTED * _kv_least(need))


def _room(device: Device, used: Mapping[int, int]) -> int:
    return int(device.total * GPU_SHARE) - device.foreign - used.get(device.index, 0)
