"""What each layer of real families keeps, from the essentials of their config.json."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.support.checkpoints import DEEPSEEK_V3, GEMMA3, LLAMA, MISTRAL, QWEN3_NEXT
from vllamad.core.kv_cache import Layers
from vllamad.models.checkpoint.metadata import facts_from

GEMMA2 = {
    "model_type": "gemma2", "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096,
}  # fmt: skip
# As its maker published it: the rest is what the family's own code says.
GEMMA3_BARE = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "sliding_window": 1024,
    },
}  # fmt: skip
GEMMA4 = {
    "text_config": {
        "model_type": "gemma4_text", "num_hidden_layers": 30, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256, "global_head_dim": 512, "sliding_window": 1024,
        "attention_k_eq_v": True, "num_global_key_value_heads": 2,
    },
}  # fmt: skip
GEMMA3N = {
    "text_config": {
        "model_type": "gemma3n_text", "num_hidden_layers": 30, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "sliding_window": 512,
        "num_kv_shared_layers": 10,
    },
}  # fmt: skip
GPT_OSS = {
    "model_type": "gpt_oss", "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip
GRANITE4_H = {
    "model_type": "granitemoehybrid", "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 8, "hidden_size": 2048, "mamba_n_heads": 64, "mamba_d_head": 64,
    "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2,
    "layer_types": (["mamba"] * 9 + ["attention"]) * 4,
}  # fmt: skip
NEMOTRON_H = {
    "model_type": "nemotron_h", "num_hidden_layers": 6, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "mamba_num_heads": 64, "mamba_head_dim": 64,
    "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4, "hybrid_override_pattern": "M-M*ME",
}  # fmt: skip
LLAMA4 = {
    "model_type": "llama4_text", "num_hidden_layers": 4, "num_attention_heads": 40,
    "num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 8192,
    "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
}  # fmt: skip
NO_WINDOW = {**GEMMA2, "sliding_window": None}
GDN_STATE = 4 * (32 * 128 * 128 + (32 * 128 + 2 * 16 * 128) * 3)
GDN = {
    "linear_num_value_heads": 32, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
    "linear_key_head_dim": 128, "linear_conv_kernel_dim": 4,
}  # fmt: skip
MAMBA2_STATE = 4 * (64 * 64 * 128 + (64 * 64 + 2 * 128) * 3)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (LLAMA, [Layers(count=32, heads=8, width=256)]),
        (MISTRAL, [Layers(count=32, heads=8, width=256)]),
        (DEEPSEEK_V3, [Layers(count=61, width=576)]),
        (
            GEMMA2,
            [
                Layers(count=13, heads=4, width=512),
                Layers(count=13, heads=4, width=512, window=4096),
            ],
        ),
        (NO_WINDOW, [Layers(count=26, heads=4, width=512)]),
        (
            GEMMA3,
            [
                Layers(count=5, heads=4, width=512),
                Layers(count=29, heads=4, width=512, window=1024),
            ],
        ),
        (
            GEMMA3_BARE,
            [
                Layers(count=5, heads=4, width=512),
                Layers(count=29, heads=4, width=512, window=1024),
            ],
        ),
        (
            GEMMA3N,
            [
                Layers(count=4, heads=2, width=512),
                Layers(count=16, heads=2, width=512, window=512),
            ],
        ),
        (
            GEMMA4,
            [
                Layers(count=5, heads=2, width=1024),
                Layers(count=25, heads=8, width=512, window=1024),
            ],
        ),
        (
            GPT_OSS,
            [
                Layers(count=12, heads=8, width=128),
                Layers(count=12, heads=8, width=128, window=128),
            ],
        ),
        (
            QWEN3_NEXT | GDN,
            [Layers(count=12, heads=2, width=512), Layers(count=36, state=GDN_STATE)],
        ),
        (
            {**QWEN3_NEXT, **GDN, "layer_types": None},
            [Layers(count=12, heads=2, width=512), Layers(count=36, state=GDN_STATE)],
        ),
        (QWEN3_NEXT, [Layers(count=12, heads=2, width=512)]),
        (
            GRANITE4_H,
            [Layers(count=4, heads=8, width=128), Layers(count=36, state=MAMBA2_STATE)],
        ),
        (
            {**GRANITE4_H, "mamba_d_head": "auto"},
            [Layers(count=4, heads=8, width=128), Layers(count=36, state=MAMBA2_STATE)],
        ),
        (
            NEMOTRON_H,
            [
                Layers(count=1, heads=8, width=256),
                Layers(count=3, state=4 * (64 * 64 * 128 + (64 * 64 + 2 * 8 * 128) * 3)),
            ],
        ),
        (LLAMA4, [Layers(count=4, heads=8, width=256)]),
        ({}, []),
        ({"layer_types": 7, "num_hidden_layers": True}, []),
    ],
)
def test_the_layers_of_real_families_by_what_they_keep(
    config: Mapping[str, object], layers: list[Layers]
) -> None:
    assert list(facts_from(config, {}).cache) == layers


def test_what_a_maker_left_out_of_its_files_is_known() -> None:
    facts = facts_from(GEMMA3_BARE, {})
    assert (facts.context_length, facts.heads, facts.kv_heads) == (131072, 8, 4)
