"""Derived models: a manifest with an overlay over the files of an installed model.

Everything here blocks.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.core.overlay import Overlay
from vllamad.errors import VllamadError
from vllamad.models.installed import InstalledModel
from vllamad.models.store import lora, model_store
from vllamad.models.store.manifests import Manifest, load_manifest, manifest_paths, read_manifest
from vllamad.models.store.model_store import ManifestChange


def derive_model(
    models: Path, base: InstalledModel, name: ModelName, overlay: Overlay
) -> ManifestChange:
    """Make `name` the files of `base` with `overlay`, and replace its former manifest.

    The adapter must be stored already. Raises ModelNotFound if `base` was removed meanwhile.
    """

    def make() -> Manifest:
        source = _manifest_of(models, base)
        root = source.base or source.name
        return msgspec.structs.replace(
            source,
            name=name.canonical(),
            # A model that replaces its own base becomes a base itself.
            base="" if parse_model_name(root).key() == name.key() else root,
            overlay=overlay,
            created=time.time(),
        )

    return model_store.replace_manifest(models, name, make)


def remove_unused_adapters(models: Path) -> None:
    """Remove adapters that no manifest names. Call it only while no model is being created."""
    used: set[str] = set()
    for path in manifest_paths(models):
        try:
            adapter = load_manifest(models, path).overlay.adapter
        except VllamadError:
            return  # an unreadable manifest may name any adapter
        if adapter is not None:
            used.add(adapter.id)
    lora.remove_adapters_except(models, used)


def _manifest_of(models: Path, base: InstalledModel) -> Manifest:
    if base.stored:
        return read_manifest(models, parse_model_name(base.canonical))
    return Manifest(
        name=base.canonical,
        source="",
        revision="",
        folder="",
        files=(),
        digest=base.digest,
        created=0,
    )
