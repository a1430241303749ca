"""How a model is computed on a CPU: in which number type, and by how many threads.

Which type is fast is measured (`runtimes/runtime_probe.py`) and comes in as data.
"""

from __future__ import annotations

from dataclasses import dataclass

# How much faster float32 has to be: it takes twice the memory.
FLOAT32_SPEEDUP = 1.2
# Below this number of cores none is kept free for the processes beside the worker.
SPARE_CORES = 4
# What vLLM computes in where no type is named, by how the weights are stored.
CHECKPOINT_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "bfloat16"}
FLOAT32 = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTimes:
    """Milliseconds that the same small matrix products take in each type; 0: not measured."""

    bfloat16: float = 0.0
    float16: float = 0.0
    float32: float = 0.0

    def of(self, name: str) -> float:
        """The time of one type; 0 for a name that is none of these."""
        return getattr(self, name, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """What a model is computed in; `auto` is left to the engine. `why` is for people."""

    name: str = "auto"
    why: str = ""


def choose_number_type(
    label: str, times: NumberTimes, *, wide_fits: bool, pooling: bool
) -> NumberType:
    """Choose for weights stored as `label` says (`BF16`, `AWQ-4bit`, ...).

    `wide_fits`: there is memory for it in float32, weights and cache. Quantised weights keep the
    type that their own kernels take. Vectors (`pooling`) are float32 as sentence-transformers'.
    """
    own = CHECKPOINT_TYPES.get(label, "")
    if not own and not pooling:
        return NumberType(why="the checkpoint's own")
    kept = NumberType(name=own or "auto", why="the checkpoint's own")
    if pooling:
        wide = NumberType(name=FLOAT32, why="vectors are computed in it")
        return wide if wide_fits else _short_of_memory(kept)
    mine, theirs = times.of(own), times.of(FLOAT32)
    if not (mine and theirs):
        return NumberType(name=own, why="the checkpoint's own; nothing is measured here")
    if mine < FLOAT32_SPEEDUP * theirs:
        return NumberType(name=own, why=f"{theirs / mine:.1f} x as fast as float32 here")
    if not wide_fits:
        return _short_of_memory(kept)
    return NumberType(name=FLOAT32, why=f"{mine / theirs:.1f} x as fast as {own} here")


def _short_of_memory(kept: NumberType) -> NumberType:
    return NumberType(name=kept.name, why=f"{kept.why}; in float32 it would not fit into memory")


def thread_count(cores: int, workers: int) -> int:
    """How many threads compute in each of `workers` that may be busy at once on `cores`."""
    return max(1, (cores - _spare(cores)) // max(1, workers))


def explain_threads(cores: int, workers: int) -> str:
    """The same in words."""
    spare = ", one kept free" if _spare(cores) else ""
    shared = f", shared by {workers} workers" if workers > 1 else ""
    return f"{cores} core{'s' if cores != 1 else ''}{spare}{shared}"


def _spare(cores: int) -> int:
    return 1 if cores >= SPARE_CORES else 0
