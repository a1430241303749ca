"""Derives from config.json the KV cache that each kind of layer needs for a request.

Follows vLLM's models: windows, latents, states of recurrent layers, caches that layers share.
"""

from __future__ import annotations

from collections import Counter

from vllamad.core.kv_cache import Layers
from vllamad.models.checkpoint.json_access import Json, get_list, get_text, get_whole

# The keys under which families give the number of layers.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers")
# Families whose config.json may omit that every N-th layer is full attention.
_FULL_EVERY = {
    "cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3_text": 6, "gemma3n_text": 5,
    "gemma4_text": 6, "gpt_oss": 2, "olmo3": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4,
    "qwen3_next": 4,
}  # fmt: skip
_STATE_ELEMENT = 4  # bytes: the widest type vLLM keeps a recurrent state in


def cache_layers(config: Json, *, heads: int, head_dim: int) -> tuple[Layers, ...]:
    """The layers of a language model by kind of cache; empty where config.json has no layers."""
    counts = Counter(_kinds(config))
    window = get_whole(config, "sliding_window")
    if not window:
        counts["full"] += counts.pop("sliding", 0)
    full, width = heads, 2 * head_dim
    if latent := get_whole(config, "kv_lora_rank"):  # one compressed vector a token
        full, width = 1, latent + get_whole(config, "qk_rope_head_dim")
    elif wide := get_whole(config, "global_head_dim"):  # gemma 4
        shared = config.get("attention_k_eq_v") is True
        full = (get_whole(config, "num_global_key_value_heads") if shared else 0) or heads
        width = 2 * wide
    kinds = (
        Layers(count=counts["full"], heads=full, width=width),
        Layers(count=counts["sliding"], heads=heads, width=2 * head_dim, window=window),
        Layers(count=counts["state"], state=_state_bytes(config)),
    )
    return tuple(kind for kind in kinds if kind.keeps)


def _kinds(config: Json) -> list[str]:
    """For each layer that has a cache of its own: full, sliding or state."""
    named = [_kind(str(name)) for name in _named(config)]
    if not named:
        count = get_whole(config, *LAYERS)
        interval = get_whole(config, "sliding_window_pattern", "full_attention_interval")
        every = interval or _FULL_EVERY.get(get_text(config, "model_type"), 1)
        other = "state" if get_whole(config, "linear_num_value_heads") else "sliding"
        named = [other if (index + 1) % every else "full" for index in range(count)]
    # In some models the last layers share the cache of earlier ones.
    return named[: len(named) - get_whole(config, "num_kv_shared_layers")]


def _named(config: Json) -> list[object]:
    letters = {"M": "mamba", "*": "attention"}
    pattern = [letters.get(sign, "") for sign in get_text(config, "hybrid_override_pattern")]
    return get_list(config, "layer_types") or get_list(config, "layers_block_type") or [*pattern]


def _kind(name: str) -> str:
    if name.startswith(("linear", "mamba", "conv")):
        return "state"
    if name.startswith("sliding"):
        return "sliding"
    return "full" if name.endswith("attention") else ""  # chunked attention gets a full cache


def _state_bytes(config: Json) -> int:
    """The state of one recurrent layer, a gated delta net or Mamba 2; 0 for an unknown kind."""
    inner = get_whole(config, "linear_num_value_heads") * get_whole(config, "linear_value_head_dim")
    deep = get_whole(config, "linear_key_head_dim")
    beside = 2 * get_whole(config, "linear_num_key_heads") * deep
    if not inner:
        heads = get_whole(config, "mamba_n_heads", "mamba_num_heads")
        inner = heads * get_whole(config, "mamba_d_head", "mamba_head_dim") or (
            get_whole(config, "mamba_expand") * get_whole(config, "hidden_size")
        )
        deep = get_whole(config, "mamba_d_state", "ssm_state_size")
        beside = 2 * get_whole(config, "mamba_n_groups", "n_groups") * deep
    kernel = get_whole(config, "linear_conv_kernel_dim", "mamba_d_conv", "conv_kernel")
    return (inner * deep + (inner + beside) * max(0, kernel - 1)) * _STATE_ELEMENT
