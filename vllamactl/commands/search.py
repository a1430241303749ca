"""The catalogue of models that can be pulled by a short name; needs no daemon and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.commands.config import read_settings
from vllamactl.render import table

if TYPE_CHECKING:
    from vllamad.core.variants import KnownModel


def search(call: CommandContext, words: list[str]) -> None:
    """Show the known models in whose name, description or repositories every word is."""
    from vllamad.models.registry.registry_file import (
        load_registry,  # reads TOML: slow, and no other needs it
    )

    known = load_registry(read_settings(call.environ).paths.registry_files)
    found = known.search(" ".join(words))
    rows = [
        (
            model.name,
            human.size(model.weights(model.variants[0])),
            str(model.context),
            ", ".join(variant.format for variant in model.variants),
            model.license + (", gated" if model.gated else ""),
            model.about,
        )
        for model in found
    ]
    heads = ("NAME", "SIZE", "CONTEXT", "VARIANTS", "LICENSE", "ABOUT")
    data = {"models": [_as_json(model) for model in found]}
    call.screen.answer(data, table(heads, rows), [model.name for model in found])
    if not found:
        call.screen.note("no known model has all of these words; any org/repo can be pulled")


def _as_json(model: KnownModel) -> dict[str, object]:
    return {
        "name": model.name,
        "also": model.also,
        "about": model.about,
        "kind": model.kind,
        "license": model.license,
        "gated": model.gated,
        "parameters": model.parameters,
        "context_length": model.context,
        "kv_per_token": model.kv_per_token,
        "variants": [
            {
                "format": variant.format,
                "repository": variant.repository,
                "revision": variant.revision,
                "gated": variant.gated,
                "size": model.weights(variant),
            }
            for variant in model.variants
        ],
    }
