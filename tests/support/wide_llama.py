"""A Llama with the KV cache of Llama 3.2 1B, 32 KiB a token, and under 4 MB of random weights."""

from __future__ import annotations

from pathlib import Path

from tests.support.random_weights import BYTES, Shapes, byte_tokenizer, write_files

LAYERS, HEADS, HEAD, WIDTH, INNER = 16, 8, 64, 32, 32
LONGEST = 131072
_SPECIAL = ("<s>", "</s>")
_VOCABULARY = BYTES + len(_SPECIAL)

CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": _VOCABULARY,
    "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD,
    "max_position_embeddings": LONGEST, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    "bos_token_id": BYTES, "eos_token_id": BYTES + 1, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def write_wide_llama(folder: Path) -> Path:
    """A whole checkpoint."""
    files: dict[str, object] = {
        "config.json": CONFIG,
        "chat_template.jinja": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
        "tokenizer.json": byte_tokenizer(_SPECIAL),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST,
            "bos_token": "<s>", "eos_token": "</s>",
        },
    }  # fmt: skip
    shapes: Shapes = {
        "model.embed_tokens.weight": (_VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,),
    }  # fmt: skip
    for number in range(LAYERS):
        name = f"model.layers.{number}"
        shapes |= {
            f"{name}.input_layernorm.weight": (WIDTH,),
            f"{name}.post_attention_layernorm.weight": (WIDTH,),
            f"{name}.self_attn.o_proj.weight": (WIDTH, HEADS * HEAD),
            f"{name}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"{name}.mlp.up_proj.weight": (INNER, WIDTH),
            f"{name}.mlp.down_proj.weight": (WIDTH, INNER),
        }
        for one in ("q_proj", "k_proj", "v_proj"):
            shapes[f"{name}.self_attn.{one}.weight"] = (HEADS * HEAD, WIDTH)
    return write_files(folder, files, shapes)
