"""An Idefics3 (the family of SmolVLM) of a third of a megabyte, with random weights."""

from __future__ import annotations

from pathlib import Path

from tests.support.random_weights import BYTES, Shapes, byte_tokenizer, linear, norm, write_files

WIDTH, INNER, SIDE, PATCH = 64, 128, 56, 14
_SPECIAL = (
    "<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)  # fmt: skip
_VOCABULARY = BYTES + len(_SPECIAL)

CONFIG: dict[str, object] = {
    "architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3",
    "image_token_id": BYTES + 2, "scale_factor": 2, "pad_token_id": BYTES + 1,
    "tie_word_embeddings": False, "dtype": "bfloat16",
    "text_config": {
        "model_type": "llama", "vocab_size": _VOCABULARY, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
        "bos_token_id": BYTES, "eos_token_id": BYTES + 1, "pad_token_id": BYTES + 1,
    },
    "vision_config": {
        "model_type": "idefics3_vision", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH,
    },
}  # fmt: skip
_PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor", "processor_class": "Idefics3Processor",
    "do_image_splitting": True, "max_image_size": {"longest_edge": SIDE},
    "size": {"longest_edge": 2 * SIDE}, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "do_pad": True, "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3, "resample": 1, "rescale_factor": 1 / 255,
}  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}{{ m.role + ': ' }}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p.type == 'image' %}{{ '<image>' }}"
    "{% elif p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{{ '\n' }}"
    "{% endfor %}"
)


def write_idefics(folder: Path) -> Path:
    """A whole checkpoint."""
    files: dict[str, object] = {
        "config.json": CONFIG,
        "preprocessor_config.json": _PREPROCESSOR,
        "processor_config.json": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
        "chat_template.jinja": _TEMPLATE,
        "tokenizer.json": byte_tokenizer(_SPECIAL),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024,
            "bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
        },
    }  # fmt: skip
    return write_files(folder, files, _text() | _vision())


def _text() -> Shapes:
    layer = "model.text_model.layers.0"
    shapes: Shapes = {
        "lm_head.weight": (_VOCABULARY, WIDTH),
        "model.text_model.embed_tokens.weight": (_VOCABULARY, WIDTH),
        "model.text_model.norm.weight": (WIDTH,),
        "model.connector.modality_projection.proj.weight": (WIDTH, 4 * WIDTH),
        f"{layer}.input_layernorm.weight": (WIDTH,),
        f"{layer}.post_attention_layernorm.weight": (WIDTH,),
        f"{layer}.mlp.gate_proj.weight": (INNER, WIDTH),
        f"{layer}.mlp.up_proj.weight": (INNER, WIDTH),
        f"{layer}.mlp.down_proj.weight": (WIDTH, INNER),
    }
    for one in ("q_proj", "k_proj", "v_proj", "o_proj"):
        shapes[f"{layer}.self_attn.{one}.weight"] = (WIDTH, WIDTH)
    return shapes


def _vision() -> Shapes:
    model = "model.vision_model"
    layer = f"{model}.encoder.layers.0"
    shapes: Shapes = {
        f"{model}.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        f"{model}.embeddings.patch_embedding.bias": (WIDTH,),
        f"{model}.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2, WIDTH),
    }
    for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= linear(f"{layer}.self_attn.{one}", WIDTH, WIDTH)
    shapes |= linear(f"{layer}.mlp.fc1", INNER, WIDTH) | linear(f"{layer}.mlp.fc2", WIDTH, INNER)
    shapes |= norm(f"{layer}.layer_norm1", WIDTH) | norm(f"{layer}.layer_norm2", WIDTH)
    return shapes | norm(f"{model}.post_layernorm", WIDTH)
