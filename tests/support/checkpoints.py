"""Writes small checkpoints in the real formats, and keeps the essentials of real families."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from vllamad.models.checkpoint.safetensors import BITS

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 131072, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0, "torch_dtype": "bfloat16", "vocab_size": 128256,
}  # fmt: skip
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
    "intermediate_size": 1536, "max_position_embeddings": 8192, "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "rms_norm_eps": 1e-05,
    "rope_theta": 100000, "torch_dtype": "bfloat16", "vocab_size": 49152,
}  # fmt: skip
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "torch_dtype": "bfloat16", "vocab_size": 151936,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128,
    "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000, "torch_dtype": "bfloat16", "vocab_size": 151936,
}  # fmt: skip
MISTRAL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "sliding_window": None, "torch_dtype": "bfloat16",
    "vocab_size": 32768,
}  # fmt: skip
GEMMA3 = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {
        "head_dim": 256, "hidden_size": 2560, "intermediate_size": 10240,
        "max_position_embeddings": 131072, "model_type": "gemma3_text",
        "num_attention_heads": 8, "num_hidden_layers": 34, "num_key_value_heads": 4,
        "rope_theta": 1000000.0, "sliding_window": 1024, "vocab_size": 262208,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "image_size": 896},
}  # fmt: skip
PHI3 = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "torch_dtype": "bfloat16", "vocab_size": 32064,
}  # fmt: skip
BERT = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384,
    "intermediate_size": 1536, "max_position_embeddings": 512, "num_attention_heads": 12,
    "num_hidden_layers": 6, "vocab_size": 30522, "torch_dtype": "float32",
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 768, "n_head": 12,
    "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
}  # fmt: skip
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "kv_lora_rank": 512, "max_position_embeddings": 163840, "num_attention_heads": 128,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}, "vocab_size": 129280,
}  # fmt: skip
QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "head_dim": 256,
    "hidden_size": 2048, "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 12,
    "max_position_embeddings": 262144, "num_attention_heads": 16, "num_hidden_layers": 48,
    "num_key_value_heads": 2, "vocab_size": 151936,
}  # fmt: skip

# The parts of real chat templates that tell their families apart.
QWEN25_TEMPLATE = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{{- \"For each function call, return a json"
    ' object within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>,'
    ' \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}{%- endif %}'
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN3_TEMPLATE = QWEN25_TEMPLATE.replace(
    "assistant\\n' }}{%- endif %}",
    "assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
)
QWQ_TEMPLATE = QWEN25_TEMPLATE.replace("assistant\\n'", "assistant\\n<think>\\n'")
QWEN3_CODER_TEMPLATE = (
    "{%- if tools %}<tool_call>\\n<function=example>\\n<parameter=one>\\nvalue"
    '{"name"}{%- endif %}{%- if add_generation_prompt %}{%- endif %}'
)
LLAMA31_TEMPLATE = (
    '{%- if tools is not none %}{{- "Environment: ipython\\n" }}{{- \'Respond in the format'
    ' {"name": function name, "parameters": dictionary}\' }}{{- "<|python_tag|>" }}{%- endif %}'
)
MISTRAL_TEMPLATE = '{%- if tools %}{{- "[AVAILABLE_TOOLS] [" }}{{- "[TOOL_CALLS] [" }}{%- endif %}'
DISTILL_TEMPLATE = (
    "{{'<｜tool▁calls▁begin｜>'}}{% set content = content.split('</think>')[-1] %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role']}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Shapes = dict[str, tuple[str, tuple[int, ...]]]


def header_of(shapes: Shapes) -> tuple[dict[str, object], int]:
    """A header for these tensors end to end, and how many bytes they take."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt", "shape": "any"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        size = math.prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries, end


def write_safetensors(path: Path, shapes: Shapes) -> None:
    entries, size = header_of(shapes)
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def write_checkpoint(folder: Path, config: Mapping[str, object] = SMOLLM2, **files: object) -> Path:
    """A whole little checkpoint; `files` are further ones, `_` for the dot of the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", {"embed.weight": ("BF16", (16, 4))})
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{ending}").write_text(text)
    return folder


CACHED_COMMIT = "a" * 40


def bring(cache: Path, repository: str, commit: str = CACHED_COMMIT, *, ref: str = "main") -> Path:
    """Put a checkpoint into a cache as huggingface_hub does: the files are links to blobs."""
    place = cache / f"models--{repository.replace('/', '--')}"
    made = write_checkpoint(cache.parent / "made" / repository / commit)
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for number, file in enumerate(made.iterdir()):
        blob = place / "blobs" / f"{commit[:8]}{number}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(blob)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    return snapshot
