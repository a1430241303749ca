"""A CPU and a GPU runtime, and a plan of the same model for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import structs

from tests.support.engine_features import engine_features
from tests.support.kv_caches import flat
from vllamad.core.launch import Plan, Spec
from vllamad.core.memory import GIB, Need, Placement
from vllamad.engine.command import Engine, Workplace

# Out of the list that vLLM 0.32.0 itself gave: what its parser calls the flags we pass, and some
# that an operator may want.
FLAGS_OF_VLLM = frozenset(
    {
        "allowed-media-domains",
        "api-key",
        "compilation-config",
        "disable-access-log-for-endpoints",
        "disable-fastapi-docs",
        "dtype",
        "enable-auto-tool-choice",
        "chat-template",
        "enable-chunked-prefill",
        "enable-lora",
        "max-cpu-loras",
        "max-lora-rank",
        "max-loras",
        "enable-per-request-metrics",
        "enable-prefix-caching",
        "enable-prompt-tokens-details",
        "enforce-eager",
        "gpu-memory-utilization",
        "host",
        "kv-cache-memory-bytes",
        "limit-mm-per-prompt",
        "load-format",
        "max-model-len",
        "max-num-batched-tokens",
        "max-num-seqs",
        "model",
        "no-disable-fastapi-docs",
        "no-enable-auto-tool-choice",
        "no-enable-chunked-prefill",
        "no-enable-per-request-metrics",
        "no-enable-prefix-caching",
        "no-enable-prompt-tokens-details",
        "no-enforce-eager",
        "no-trust-remote-code",
        "port",
        "reasoning-parser",
        "runner",
        "seed",
        "served-model-name",
        "shutdown-timeout",
        "tensor-parallel-size",
        "tool-call-parser",
        "trust-remote-code",
        "uds",
    }
)


def dashed(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(f"--{name}" for name in names))


def with_features(engine: Engine, **changes: object) -> Engine:
    return replace(engine, features=structs.replace(engine.features, **changes))


CPU_RUNTIME = Engine(
    python="/runtimes/cpu/bin/python",
    features=engine_features(flags=dashed(FLAGS_OF_VLLM), tools=("hermes",), reasoning=("qwen3",)),
)
GPU_RUNTIME = Engine(
    python="/runtimes/cuda/bin/python",
    features=structs.replace(CPU_RUNTIME.features, device="cuda", fork=False),
)
WORKPLACE = Workplace(run=Path("/run/vllamad/w/0123"), cache=Path("/cache"))
SPEC = Spec(
    model="smollm2:135m",
    folder="/models/smollm2",
    need=Need(weights=GIB, cache=flat(1024), context_length=8192),
)
CPU_PLAN = Plan(spec=SPEC, placement=Placement(devices=(), per_device=3 * GIB, kv_cache=GIB))
GPU_PLAN = Plan(
    spec=SPEC,
    placement=Placement(devices=(1,), per_device=8 * GIB, kv_cache=4 * GIB, share=0.1),
)
