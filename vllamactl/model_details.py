"""What is known of a model, as blocks for people; the same for `show` and for `/show info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vllamactl.render import blocks

Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """`model_info` has the numbers under their GGUF keys."""

    architecture: str
    parameter_size: str
    quantization: str
    model_info: Mapping[str, object]
    capabilities: Sequence[str]
    parameters: str
    system: str
    license: str


def about_text(
    about: ModelDetails, *, facts: Rows = (), memory: Rows = (), tensors: Rows = ()
) -> str:
    """Blocks as the `ollama` command prints them; `facts` and `memory` are what we add."""
    family = about.architecture
    model = [
        ("architecture", family),
        ("parameters", about.parameter_size),
        ("context length", _number(about.model_info, f"{family}.context_length")),
        ("embedding length", _number(about.model_info, f"{family}.embedding_length")),
        ("quantization", about.quantization),
        *facts,
    ]
    return blocks(
        {
            "Model": [fact for fact in model if fact[1]],
            "Capabilities": [(capability,) for capability in about.capabilities],
            "Memory": memory,
            "Parameters": [
                tuple(line.split(maxsplit=1))
                for line in about.parameters.splitlines()
                if line.strip()
            ],
            "System": _head(about.system),
            "Tensors": tensors,
            "License": _head(about.license),
        }
    )


def _number(info: Mapping[str, object], key: str) -> str:
    value = info.get(key)
    return str(int(value)) if isinstance(value, int | float) and value else ""


def _head(text: str) -> list[tuple[str, ...]]:
    """A licence fills screens; its first two lines name it."""
    return [(line.strip(),) for line in text.splitlines() if line.strip()][:2]
