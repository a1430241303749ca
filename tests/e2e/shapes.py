"""The config.json of every model of the catalogue, as far as the cache depends on it.

The catalogue has layers, heads and lengths; what its families add, windows, latents, states of
recurrent layers and shared caches, is written here as their makers published it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from vllamad.core.variants import KnownModel
from vllamad.models.registry.registry_file import SHIPPED, load_registry

Json = dict[str, Any]

_GDN = {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
        "linear_conv_kernel_dim": 4, "full_attention_interval": 4}  # fmt: skip
_MAMBA = {"mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4,
          "mamba_expand": 2}  # fmt: skip


def _gdn(family: str, layers: int, value_heads: int) -> Json:
    own = {"num_hidden_layers": layers, "linear_num_value_heads": value_heads}
    return {"model_type": family, **_GDN, **own}


def _granite(heads: int, hidden: int) -> Json:
    kinds = (["mamba"] * 9 + ["attention"]) * 4
    own = {"mamba_n_heads": heads, "hidden_size": hidden, "layer_types": kinds}
    return {"model_type": "granitemoehybrid", "num_hidden_layers": 40, **_MAMBA, **own}


def _gemma4(window: int, shared: int = 0, heads: int = 0) -> Json:
    own: Json = {"num_kv_shared_layers": shared, "sliding_window": window, "global_head_dim": 512}
    if heads:
        own |= {"attention_k_eq_v": True, "num_global_key_value_heads": heads}
    return {"model_type": "gemma4_text", **own}


# By name, or by family: what differs from a plain one. Windows in tokens.
FAMILIES: dict[str, Json] = {
    "gemma2": {"model_type": "gemma2", "sliding_window": 4096},
    "gemma3": {"model_type": "gemma3_text", "sliding_window": 1024},
    "gemma3:270m": {"model_type": "gemma3_text", "sliding_window": 512},
    "gemma3:1b": {"model_type": "gemma3_text", "sliding_window": 512},
    "embeddinggemma": {"model_type": "gemma3_text", "sliding_window": 512},
    "gemma3n:e2b": {"model_type": "gemma3n_text", "sliding_window": 512,
                    "num_kv_shared_layers": 10},
    "gemma3n:e4b": {"model_type": "gemma3n_text", "sliding_window": 512,
                    "num_kv_shared_layers": 15},
    "gemma4:e2b": _gemma4(512, shared=20),
    "gemma4:e4b": _gemma4(512, shared=18),
    "gemma4:26b": _gemma4(1024, heads=2),
    "gemma4:31b": _gemma4(1024, heads=4),
    "gpt-oss": {"model_type": "gpt_oss", "sliding_window": 128},
    "command-r7b": {"model_type": "cohere2", "sliding_window": 4096},
    "llama4": {"model_type": "llama4_text", "attention_chunk_size": 8192},
    "starcoder2": {"model_type": "starcoder2", "sliding_window": 4096},
    "zephyr": {"model_type": "mistral", "sliding_window": 4096},
    "openchat": {"model_type": "mistral", "sliding_window": 4096},
    "phi3": {"model_type": "phi3", "sliding_window": 262144},
    "phi3.5": {"model_type": "phi3", "sliding_window": 262144},
    "qwen3-next": _gdn("qwen3_next", 48, 32),
    "qwen3-coder-next": _gdn("qwen3_next", 48, 32),
    "qwen3.5:0.8b": _gdn("qwen3_5_text", 24, 16),
    "qwen3.5:2b": _gdn("qwen3_5_text", 24, 16),
    "qwen3.5:4b": _gdn("qwen3_5_text", 32, 32),
    "qwen3.5:9b": _gdn("qwen3_5_text", 32, 32),
    "qwen3.5:27b": _gdn("qwen3_5_text", 64, 48),
    "qwen3.5:35b": _gdn("qwen3_5_moe_text", 40, 32),
    "qwen3.5:122b": _gdn("qwen3_5_moe_text", 48, 64),
    "granite4:micro-h": _granite(64, 2048),
    "granite4:tiny-h": _granite(48, 1536),
    "granite4:small-h": _granite(128, 4096),
}  # fmt: skip
_LATENT = {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64,
           "qk_nope_head_dim": 128, "v_head_dim": 128, "num_attention_heads": 128,
           "num_key_value_heads": 128, "head_dim": 64, "hidden_size": 8192}  # fmt: skip


def shapes() -> Iterator[tuple[KnownModel, Json]]:
    """Every model of the shipped catalogue that has a cache, with its config.json."""
    known = load_registry()
    tables = tomllib.loads(SHIPPED.read_text())
    for model in known.models:
        family, _, tag = model.name.partition(":")
        shape = tables[family]["tags"][tag].get("shape")
        if shape:
            yield model, _config(model, family, shape)


def _config(model: KnownModel, family: str, shape: Json) -> Json:
    plain = {
        "model_type": "llama",
        "num_hidden_layers": shape["layers"],
        "num_key_value_heads": shape.get("kv_heads", 1),
        # The most GPUs of a machine here divide it; how many queries there are is all the same.
        "num_attention_heads": 8 * shape.get("kv_heads", 1),
        "head_dim": shape.get("head_dim", 128),
        "max_position_embeddings": model.context,
        "vocab_size": 1024,
    }
    plain["hidden_size"] = 8 * shape.get("kv_heads", 1) * shape.get("head_dim", 128)
    own = _LATENT if "latent" in shape else FAMILIES.get(model.name, FAMILIES.get(family, {}))
    return plain | own
