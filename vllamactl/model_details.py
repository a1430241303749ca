"""The details of a model as blocks of text; used by `show` and by `/show info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vllamactl.render import blocks

Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """The details of a model; `model_info` has the numbers under their GGUF keys."""

    architecture: str
    parameter_size: str
    quantization: str
    model_info: Mapping[str, object]
    capabilities: Sequence[str]
    parameters: str
    system: str
    license: str


def details_text(
    details: ModelDetails, *, facts: Rows = (), memory: Rows = (), tensors: Rows = ()
) -> str:
    """Format the blocks as the `ollama` command does; `facts` and `memory` are our additions."""
    family = details.architecture
    model = [
        ("architecture", family),
        ("parameters", details.parameter_size),
        ("context length", _number(details.model_info, f"{family}.context_length")),
        ("embedding length", _number(details.model_info, f"{family}.embedding_length")),
        ("quantization", details.quantization),
        *facts,
    ]
    return blocks(
        {
            "Model": [fact for fact in model if fact[1]],
            "Capabilities": [(capability,) for capability in details.capabilities],
            "Memory": memory,
            "Parameters": [
                tuple(line.split(maxsplit=1))
                for line in details.parameters.splitlines()
                if line.strip()
            ],
            "System": _head(details.system),
            "Tensors": tensors,
            "License": _head(details.license),
        }
    )


def _number(info: Mapping[str, object], key: str) -> str:
    value = info.get(key)
    return str(int(value)) if isinstance(value, int | float) and value else ""


def _head(text: str) -> list[tuple[str, ...]]:
    """Return the first two lines; those of a licence name it."""
    return [(line.strip(),) for line in text.splitlines() if line.strip()][:2]
