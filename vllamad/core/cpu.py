"""The number type and the number of threads that a model is computed with on a CPU.

The speed of each type is measured by `runtimes/runtime_probe.py` and comes in as data.
"""

from __future__ import annotations

from dataclasses import dataclass

# The speedup at which float32 is chosen: it takes twice the memory.
FLOAT32_SPEEDUP = 1.2
# From this number of cores on, one is kept free for the processes beside the worker.
SPARE_CORES = 4
# The type that vLLM computes in by default, by the type of the stored weights.
CHECKPOINT_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "bfloat16"}
FLOAT32 = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTimes:
    """Milliseconds that the same small matrix products take in each type; 0 if not measured."""

    bfloat16: float = 0.0
    float16: float = 0.0
    float32: float = 0.0

    def of(self, name: str) -> float:
        """The time of one type; 0 for an unknown type."""
        return getattr(self, name, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """The type a model is computed in; the engine chooses for `auto`. `why` is for users."""

    name: str = "auto"
    why: str = ""


def choose_number_type(
    label: str, times: NumberTimes, *, wide_fits: bool, pooling: bool
) -> NumberType:
    """Choose the type for weights that are stored as `label` (`BF16`, `AWQ-4bit`, ...).

    `wide_fits` says that weights and cache fit into memory in float32. Quantised weights keep the
    type that their kernels take. Embedding models (`pooling`) compute in float32, as
    sentence-transformers do.
    """
    checkpoint_type = CHECKPOINT_TYPES.get(label, "")
    if not checkpoint_type and not pooling:
        return NumberType(why="the checkpoint's own")
    default = NumberType(name=checkpoint_type or "auto", why="the checkpoint's own")
    if pooling:
        wide = NumberType(name=FLOAT32, why="vectors are computed in it")
        return wide if wide_fits else _short_of_memory(default)
    checkpoint_time, float32_time = times.of(checkpoint_type), times.of(FLOAT32)
    if not (checkpoint_time and float32_time):
        return NumberType(
            name=checkpoint_type, why="the checkpoint's own; nothing is measured here"
        )
    if checkpoint_time < FLOAT32_SPEEDUP * float32_time:
        return NumberType(
            name=checkpoint_type,
            why=f"{float32_time / checkpoint_time:.1f} x as fast as float32 here",
        )
    if not wide_fits:
        return _short_of_memory(default)
    return NumberType(
        name=FLOAT32,
        why=f"{checkpoint_time / float32_time:.1f} x as fast as {checkpoint_type} here",
    )


def _short_of_memory(default: NumberType) -> NumberType:
    return NumberType(
        name=default.name, why=f"{default.why}; in float32 it would not fit into memory"
    )


def thread_count(cores: int, workers: int) -> int:
    """The number of computing threads for each of `workers` that share `cores`."""
    return max(1, (cores - _spare(cores)) // max(1, workers))


def explain_threads(cores: int, workers: int) -> str:
    """The explanation of `thread_count` for users."""
    spare = ", one kept free" if _spare(cores) else ""
    shared = f", shared by {workers} workers" if workers > 1 else ""
    return f"{cores} core{'s' if cores != 1 else ''}{spare}{shared}"


def _spare(cores: int) -> int:
    return 1 if cores >= SPARE_CORES else 0
