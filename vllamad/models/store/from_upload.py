"""Models made of uploaded blobs: chooses the model's files and links them into its folder.

Nothing is copied: a model's file is a hard link to its blob. Everything here blocks.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from vllamad.core.model_name import ModelName
from vllamad.core.overlay import Overlay
from vllamad.errors import BadInput, HostProblem
from vllamad.models.checkpoint.json_access import Json, decode_object
from vllamad.models.checkpoint.metadata import INDEX_LIMIT, read_facts
from vllamad.models.checkpoint.weights import INDEX, weight_files
from vllamad.models.hub.file_selection import is_wanted
from vllamad.models.store import lora, model_store
from vllamad.models.store.manifests import Manifest, StoredFile, check_whole, digest_of
from vllamad.models.store.safe_files import read_bounded, safe_path, sync_folder
from vllamad.models.store.upload_blobs import blob_path

SOURCE: Final = "uploaded files"

_TOKENIZER = re.compile(r"(?i).*(tokeni[sz]er|vocab|tekken|spiece|sentencepiece|\.tiktoken)")


def plan_manifest(
    models: Path, name: ModelName, files: Mapping[str, str], overlay: Overlay
) -> Manifest:
    """The manifest of a model made of `files`, name to SHA-256; writes nothing.

    Raises BadInput for a blob that was not uploaded, and for a missing file.
    """
    blobs = {
        safe_path(file): blob_path(models, f"sha256:{digest}") for file, digest in files.items()
    }
    sizes = {file: _size(blob) for file, blob in blobs.items()}
    chosen = _chosen(blobs)
    stored = tuple(
        StoredFile(path=file, size=sizes[file], sha256=files[file]) for file in sorted(chosen)
    )
    content = digest_of(SOURCE, "", stored)
    repository = model_store.hub_folder(models) / model_store.repository_folder(
        name.namespace, name.model
    )
    return Manifest(
        name=name.canonical(),
        source=SOURCE,
        revision="",
        folder=str((repository / "snapshots" / content[:40]).relative_to(models)),
        files=stored,
        digest=content,
        created=time.time(),
        overlay=overlay,
    )


def lay_out_files(models: Path, manifest: Manifest) -> None:
    """Link a planned model's files into the folder of its manifest, after checking them.

    The caller holds `repository_lock`. Raises BadInput for files, or an adapter, that the
    engine cannot use.
    """
    folder = models / manifest.folder
    if not _is_whole(models, manifest):
        draft = folder.with_name(f".{folder.name}")
        for stale in folder.parent.glob(".*"):  # of a daemon that was killed meanwhile
            shutil.rmtree(stale)
        try:
            _link_all(models, manifest, draft)
            read_facts(draft)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for parent in (folder, *folder.relative_to(models).parents):
        sync_folder(models / parent)
    if manifest.overlay.adapter is not None:
        lora.assemble_adapter(models, folder, manifest.overlay.adapter)


def _chosen(blobs: Mapping[str, Path]) -> set[str]:
    """The files that belong to the model. Raises BadInput where a required one is missing."""
    usable = {name for name in blobs if is_wanted(name) and not name.startswith(".")}
    if "config.json" not in usable:
        raise BadInput("cannot find config.json among the files")
    weights = weight_files(usable, _index(blobs) if INDEX in usable else {})
    if not any(map(_TOKENIZER.match, usable)):
        raise BadInput("cannot find a tokenizer among the files: tokenizer.json or the like")
    return usable - (_top_level_weights(usable) - set(weights))


def _top_level_weights(names: Collection[str]) -> set[str]:
    return {name for name in names if name.endswith(".safetensors") and "/" not in name}


def _index(blobs: Mapping[str, Path]) -> Json:
    return decode_object(read_bounded(blobs[INDEX], INDEX_LIMIT), INDEX)


def _size(blob: Path) -> int:
    try:
        return os.stat(blob).st_size
    except FileNotFoundError as error:
        digest = blob.name.replace("-", ":")
        raise BadInput(f'blob "{digest}" not found', hint="upload it first") from error
    except OSError as error:
        raise HostProblem(f"cannot read {blob.name}: {error.strerror}") from error


def _is_whole(models: Path, manifest: Manifest) -> bool:
    try:
        check_whole(models, manifest)
    except HostProblem:
        return False
    return True


def _link_all(models: Path, manifest: Manifest, folder: Path) -> None:
    """Hard-link the blobs into `folder`, readable for the account the engine runs as."""
    with model_store.disk_problems("store the model"):
        for file in manifest.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(blob_path(models, f"sha256:{file.sha256}"), path)
            os.chmod(path, 0o644)
        for inner, _, _ in os.walk(folder):
            sync_folder(Path(inner))
