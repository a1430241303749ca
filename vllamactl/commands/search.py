"""The command `search`: models that have a short name; needs no daemon and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.commands.config import read_settings
from vllamactl.render import table

if TYPE_CHECKING:
    from vllamad.core.variants import KnownModel


def search(context: CommandContext, words: list[str]) -> None:
    """List the known models that contain every word in name, description or repositories."""
    from vllamad.models.registry.registry_file import (
        load_registry,  # reads TOML: slow, and no other command needs it
    )

    registry = load_registry(read_settings(context.environ).paths.registry_files)
    matches = registry.search(" ".join(words))
    rows = [
        (
            model.name,
            human.size(model.weights(model.variants[0])),
            str(model.context),
            ", ".join(variant.format for variant in model.variants),
            model.license + (", gated" if model.gated else ""),
            model.about,
        )
        for model in matches
    ]
    heads = ("NAME", "SIZE", "CONTEXT", "VARIANTS", "LICENSE", "ABOUT")
    data = {"models": [_as_json(model) for model in matches]}
    context.screen.answer(data, table(heads, rows), [model.name for model in matches])
    if not matches:
        context.screen.note("no known model matches all of these words; any org/repo can be pulled")


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
