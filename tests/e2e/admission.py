"""Runs in the engine's own Python: asks vLLM whether it admits each length with so many bytes.

Reads cases as JSON from stdin, writes for each "" or vLLM's refusal. Layers are made into specs as
vLLM's models make them, from transformers' reading of config.json: nothing of ours is used.
"""

from __future__ import annotations

import json
import sys
from math import lcm
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig
from vllm.config import VllmConfig
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator as States
from vllm.utils.torch_utils import get_dtype_size
from vllm.v1.core.kv_cache_utils import get_kv_cache_configs
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
)

TYPES = {2: torch.bfloat16, 4: torch.float32}
CPU, GPU = "cpu", "cuda"


def ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def config_of(case: dict[str, Any]) -> Any:
    told = dict(case["config"])
    return AutoConfig.for_model(told.pop("model_type"), **told)


def kinds_of(config: Any) -> list[str]:
    count = config.num_hidden_layers
    own = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    kinds = list(own) if own else ["full_attention"] * count
    return kinds[: count - (getattr(config, "num_kv_shared_layers", 0) or 0)]


def state_of(config: Any, tp: int, element: torch.dtype) -> tuple[Any, Any]:
    """Shapes and types of one recurrent layer's state."""
    if hasattr(config, "linear_num_value_heads"):
        shapes = States.gated_delta_net_state_shape(
            tp, config.linear_num_key_heads, config.linear_num_value_heads,
            config.linear_key_head_dim, config.linear_value_head_dim,
            config.linear_conv_kernel_dim,
        )  # fmt: skip
    else:
        shapes = States.mamba2_state_shape(
            tp_world_size=tp,
            intermediate_size=config.mamba_expand * config.hidden_size,
            n_groups=config.mamba_n_groups,
            num_heads=config.mamba_n_heads,
            head_dim=config.mamba_d_head,
            state_size=config.mamba_d_state,
            conv_kernel=config.mamba_d_conv,
        )
    return shapes, (element, torch.float32)


def specs_of(case: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """One rank's cache by layer, as each Attention and Mamba layer of vLLM describes itself."""
    config, tp = config_of(case), case["gpus"]
    element = TYPES[case["element"]]
    block = case["block"]
    heads = max(1, raw["num_key_value_heads"] // tp)
    token = 2 * heads * raw["head_dim"] * get_dtype_size(element)
    kinds = kinds_of(config)
    states: dict[str, Any] = {}
    if any(kind.startswith(("linear", "mamba")) for kind in kinds):
        shapes, types = state_of(config, tp, element)
        bare = MambaSpec(block_size=-1, shapes=shapes, dtypes=types)
        # _align_hybrid_block_size
        aligned = lcm(block, 32 if case["device"] == CPU else 16)
        block = max(block, aligned * ceil(bare.page_size_bytes, aligned * token))
        states = {"shapes": shapes, "dtypes": types, "page_size_padded": block * token,
                  "mamba_cache_mode": "align"}  # fmt: skip
    window = getattr(config, "sliding_window", None)
    extra = 1 if raw["model_type"] == "cohere2" else 0
    uniform = not getattr(config, "layer_types", None)
    specs: dict[str, Any] = {}
    for index, kind in enumerate(kinds):
        name = f"layer.{index}"
        base = {"block_size": block, "num_kv_heads": heads, "head_size": raw["head_dim"],
                "dtype": element}  # fmt: skip
        if "kv_lora_rank" in raw:
            latent = raw["kv_lora_rank"] + raw["qk_rope_head_dim"]
            specs[name] = MLAAttentionSpec(**base | {"num_kv_heads": 1, "head_size": latent})
        elif kind.startswith(("linear", "mamba")):
            specs[name] = MambaSpec(block_size=block, **states)
        elif window and (kind.startswith("sliding") or uniform):
            specs[name] = SlidingWindowSpec(**base, sliding_window=window + extra)
        else:
            if wide := raw.get("global_head_dim"):
                full = raw.get("num_global_key_value_heads") or raw["num_key_value_heads"]
                base |= {"head_size": wide, "num_kv_heads": max(1, full // tp)}
            specs[name] = FullAttentionSpec(**base)
    return specs


def engine(device: str) -> Any:
    """vLLM's own settings for a worker as we start it."""
    config = VllmConfig()
    scheduler, cache = config.scheduler_config, config.cache_config
    cache.kv_cache_layout = "LBHNC" if device == CPU else "LBNHC"
    cache.mamba_cache_mode = "align"
    scheduler.disable_hybrid_kv_cache_manager = False
    scheduler.async_scheduling = device == GPU
    scheduler.max_num_batched_tokens = 2048 if device == CPU else 16384
    assert config.max_in_flight_tokens == (2048 if device == CPU else 32768)
    return config


made: dict[str, dict[str, Any]] = {}


def refusal(config: Any, case: dict[str, Any]) -> str:
    length = case["length"]
    config.model_config = SimpleNamespace(max_model_len=length, original_max_model_len=length)
    key = json.dumps([case[name] for name in ("config", "device", "gpus", "element", "block")])
    specs = made[key] = made.get(key) or specs_of(case, case["config"])
    ranks = [dict(specs) for _ in range(case["gpus"])]
    try:
        get_kv_cache_configs(config, ranks, [case["bytes"]] * case["gpus"])
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    engines = {device: engine(device) for device in (CPU, GPU)}
    told = [refusal(engines[case["device"]], case) for case in json.load(sys.stdin)]
    json.dump(told, sys.stdout)


main()
