"""Environment variables of every process that runs engine code: workers and runtime probes."""

from __future__ import annotations

_USUAL_PATH = "/usr/local/bin:/usr/bin:/bin"


def runtime_path(python: str, path: str) -> str:
    """PATH with the runtime's own programs first: the engine calls ninja by its bare name."""
    return f"{python.rpartition('/')[0]}:{path or _USUAL_PATH}"


def gpu_sampler(*, compiled: bool) -> dict[str, str]:
    """The sampler of a GPU: FlashInfer's only where its kernels came compiled.

    The wheel of vLLM requires FlashInfer without them; it would call nvcc at the first sample.
    """
    return {} if compiled else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
