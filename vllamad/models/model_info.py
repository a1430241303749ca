"""An installed model in Ollama's format: the objects of /api/tags and /api/show, ready to encode.

Keys are in Ollama's order; keys that Ollama omits when empty are absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vllamad.models.checkpoint.metadata import read_tensors
from vllamad.models.installed import InstalledModel
from vllamad.translate.go.json_decoder import is_list, quoted, spelled
from vllamad.translate.go.timestamps import rfc3339

# The numbers that a GGUF file uses
_POOLING = {"mean": 1, "cls": 2, "last": 3, "lasttoken": 3, "rank": 4}

# Ollama's names for what a generation_config.json sets
_OPTION_NAMES = {"repetition_penalty": "repeat_penalty"}


def tag_entry(model: InstalledModel) -> dict[str, object]:
    """The entry of one model in `/api/tags`."""
    lengths = {
        "context_length": context_length(model),
        "embedding_length": model.facts.hidden_size,
    }
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": modified_at(model),
        "size": model.size,
        "digest": model.digest,
        "details": details_entry(model) | _set(lengths),
        "capabilities": list(model.capabilities),
    }


def details_entry(model: InstalledModel) -> dict[str, object]:
    """The `details` of `/api/show` and `/api/ps`; `/api/tags` adds two lengths."""
    family = model.facts.model_type
    return {
        "parent_model": model.base,
        "format": "safetensors",
        "family": family,
        "families": [family] if family else None,
        "parameter_size": parameter_size(model.facts.parameter_count),
        "quantization_level": model.facts.quantization,
    }


def show_response(
    model: InstalledModel, *, basename: str = "", tensors: Sequence[Mapping[str, object]] = ()
) -> dict[str, object]:
    """The reply of `/api/show`; `basename` is the name to show in place of the model's own."""
    texts = {
        "license": model.license,
        "modelfile": modelfile_of(model),
        "parameters": parameters(model),
        "template": "" if model.facts.is_embedding else model.facts.chat_template,
        "system": model.overlay.system,
    }
    return _set(texts) | {
        "details": details_entry(model),
        **_set({"messages": model.overlay.messages}),
        "model_info": checkpoint_numbers(model, basename or model.name),
        **_set({"tensors": tensors}),
        "capabilities": list(model.capabilities),
        "modified_at": modified_at(model),
    }


def checkpoint_numbers(model: InstalledModel, basename: str) -> dict[str, object]:
    """The checkpoint's numbers under the keys that clients read; unknown ones are left out."""
    facts = model.facts
    family = facts.model_type
    known = {
        "general.architecture": family,
        "general.basename": basename,
        "general.parameter_count": facts.parameter_count,
        f"{family}.context_length": context_length(model),
        f"{family}.embedding_length": facts.hidden_size,
        f"{family}.block_count": facts.layers,
        f"{family}.attention.head_count": facts.heads,
        f"{family}.attention.head_count_kv": facts.kv_heads,
        f"{family}.attention.layer_norm_rms_epsilon": facts.norm_epsilon,
        f"{family}.feed_forward_length": facts.feed_forward,
        f"{family}.pooling_type": _POOLING.get(facts.pooling, 0),
        f"{family}.rope.freq_base": facts.rope_base,
        f"{family}.vision.block_count": facts.vision_layers,
        f"{family}.vocab_size": facts.vocab,
    }
    return _set(known)


def tensor_entries(model: InstalledModel) -> tuple[Mapping[str, object], ...]:
    """Every tensor of the weights by name, as `/api/show` lists them with `verbose`.

    Reads the headers of the files once per digest. Raises BadInput, HostProblem.
    """
    return _tensors(model.folder, model.digest)


# A large model has 90 000 tensors, so only two models are kept.
@lru_cache(maxsize=2)
def _tensors(folder: Path, digest: str) -> tuple[Mapping[str, object], ...]:
    del digest  # part of the cache key only
    return tuple(
        {"name": name, "type": tensor.dtype, "shape": list(tensor.shape)}
        for name, tensor in sorted(read_tensors(folder).items())
    )


def context_length(model: InstalledModel) -> int:
    """The context length in tokens: the model's, or the configured one if smaller."""
    lengths = (model.facts.context_length, model.settings.context_length)
    return min((length for length in lengths if length), default=0)


def parameters(model: InstalledModel) -> str:
    """The model's own options, a line each: the name in 30 columns, a space, the value."""
    return "\n".join(f"{name:<30} {value}" for name, value in _options(model))


def modelfile_of(model: InstalledModel) -> str:
    """The Modelfile that makes this model again."""
    overlay = model.overlay
    lines = ['# Modelfile generated by "ollama show"', f"FROM {model.base or model.name}"]
    if overlay.adapter is not None:
        lines.append(f"ADAPTER sha256:{overlay.adapter.weights}")
    if overlay.template:
        lines.append(f"TEMPLATE {_quoted(overlay.template)}")
    if overlay.system:
        lines.append(f"SYSTEM {_quoted(overlay.system)}")
    lines += [f"PARAMETER {name} {value}" for name, value in _options(model)]
    lines += [f"MESSAGE {turn.role} {_quoted(turn.content)}" for turn in overlay.messages]
    if model.license:
        lines.append(f"LICENSE {_quoted(model.license)}")
    return "\n".join(lines) + "\n"


def parameter_size(count: int) -> str:
    """Format a number of parameters as Ollama does: `7.6B`, `134.52M`, `12K`, `7`."""
    for unit, sign, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            return f"{count / unit:.{digits if count % unit else 0}f}{sign}"
    return str(count)


def modified_at(model: InstalledModel) -> str:
    """When the model was installed or last changed, in RFC 3339."""
    return rfc3339(int(model.modified_at * 1e6) * 1000)


def _options(model: InstalledModel) -> list[tuple[str, str]]:
    """Options by name, the overlay's over the checkpoint's; a list becomes an entry per item."""
    defaults = {_OPTION_NAMES.get(key, key): value for key, value in model.facts.generation.items()}
    merged: dict[str, object] = defaults | model.overlay.parameters
    return [
        (name, _literal(item))
        for name, value in sorted(merged.items())
        for item in (value if is_list(value) else [value])
    ]


def _literal(value: object) -> str:
    """Format a value as Go does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return spelled(value)
    return quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    if "\n" not in text and text == text.strip(" "):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _set(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out values that are empty or zero."""
    return {key: value for key, value in values.items() if value}
