"""Manifests: one JSON file per model name, written atomically, that makes the model visible.

    manifests/HOST/NAMESPACE/MODEL/TAG.json

Knows where a model's files are and how large they are, not where they came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.core.overlay import EMPTY_OVERLAY, Overlay
from vllamad.errors import BadInput, HostProblem, ModelNotFound, VllamadError
from vllamad.models.store.safe_files import read_bounded, safe_path, sync_folder

SCHEMA = 1
SIZE_LIMIT = 16 << 20  # bytes; 10 000 files are about 2 MiB
REPAIR = "pull the model again, or remove it with `vllamactl rm`"

_DIGEST = re.compile(r"[0-9a-f]{64}")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model: its name within the folder, its size in bytes, its hash in hex."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One installed model; `created` is seconds since the epoch."""

    schema: int = SCHEMA
    name: str  # canonical
    source: str  # the repository it came from, or another text of the caller that added it
    revision: str
    folder: str  # of the files, relative to the root of the store
    files: tuple[StoredFile, ...]
    digest: str  # 64 hex digits: equal for equal files from the same source
    license: str = ""  # an identifier
    variant: str = ""  # the variant that the registry chose: fp8, awq
    created: float
    # Of a derived model: the canonical name of its base, whose files and worker it shares. If
    # `folder` is empty, the base is outside the store, in the configuration or a cache.
    base: str = ""
    overlay: Overlay = EMPTY_OVERLAY

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class ManifestList(NamedTuple):
    """The manifests of complete models, and a line for each manifest that cannot be used."""

    manifests: tuple[Manifest, ...]
    problems: tuple[str, ...]


_decoder = msgspec.json.Decoder(Manifest)


def digest_of(source: str, revision: str, files: Iterable[StoredFile]) -> str:
    """The digest shown to clients: it changes with the source and with any file of a model."""
    content = {
        "source": source,
        "revision": revision,
        "files": sorted((file.path, file.size, file.sha256) for file in files),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def read_manifest(models: Path, name: ModelName) -> Manifest:
    """Find a model by name in any case. Raises ModelNotFound, HostProblem if it is incomplete."""
    path = manifest_path(models, name)
    if not os.path.isfile(path):
        raise ModelNotFound(f"model '{name.display()}' not found")
    manifest = load_manifest(models, path)
    check_whole(models, manifest)
    return manifest


def list_manifests(models: Path) -> ManifestList:
    """Every complete model; a manifest that cannot be used is reported, never raised."""
    manifests: list[Manifest] = []
    problems: list[str] = []
    for path in manifest_paths(models):
        try:
            manifest = load_manifest(models, path)
            check_whole(models, manifest)
            manifests.append(manifest)
        except VllamadError as error:
            problems.append(error.message)
    return ManifestList(tuple(manifests), tuple(problems))


def manifest_paths(models: Path) -> Iterator[Path]:
    """The paths of all manifests, valid or not."""
    return (models / "manifests").glob("*/*/*/[!.]*.json")


def load_manifest(models: Path, path: Path) -> Manifest:
    """Read one manifest. Raises BadInput for an invalid file, HostProblem for a missing one."""
    where = path.relative_to(models)
    try:
        manifest = _decoder.decode(read_bounded(path, SIZE_LIMIT))
        _check(manifest, where)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"cannot use {where}: it is not a manifest") from error
    except BadInput as error:
        raise BadInput(f"cannot use {where}: {error.message}") from error
    return manifest


def check_whole(models: Path, manifest: Manifest) -> None:
    """Check that every file has its full size. Raises HostProblem that names the first fault."""
    problem = f"cannot use {parse_model_name(manifest.name).display()}"
    for file in manifest.files:
        try:
            size = os.stat(models / manifest.folder / file.path).st_size
        except OSError as error:
            raise HostProblem(f"{problem}: {file.path} is missing", hint=REPAIR) from error
        if size != file.size:
            raise HostProblem(
                f"{problem}: {file.path} has {size} bytes, not {file.size}", hint=REPAIR
            )


def _check(manifest: Manifest, where: Path) -> None:
    if manifest.schema > SCHEMA:
        raise BadInput(f"a newer vllamad wrote it (schema {manifest.schema}, not {SCHEMA})")
    _, host, namespace, model, tag = where.parts
    if parse_model_name(manifest.name).canonical() != f"{host}/{namespace}/{model}:{tag[:-5]}":
        raise BadInput(f"it belongs to another model, {manifest.name}")
    if not _DIGEST.fullmatch(manifest.digest):
        raise BadInput("its digest is not 64 hex digits")
    if manifest.base:
        parse_model_name(manifest.base)
    outside = manifest.base and not manifest.folder
    if not outside and not safe_path(manifest.folder).startswith("hub/models--"):
        raise BadInput("its folder is not in the hub cache")
    for file in manifest.files:
        safe_path(file.path)


def write_manifest(models: Path, manifest: Manifest) -> Manifest:
    """Make a model visible, or replace the one of that name, atomically and durably.

    A name that exists in another case keeps its first spelling.
    """
    path = manifest_path(models, parse_model_name(manifest.name))
    _, host, namespace, model, tag = path.relative_to(models).parts
    manifest = msgspec.structs.replace(manifest, name=f"{host}/{namespace}/{model}:{tag[:-5]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)
    return manifest


def manifest_path(models: Path, name: ModelName) -> Path:
    """The path of the manifest of `name`, in the spelling on disk if it exists."""
    path = models / "manifests"
    for part in (name.host, name.namespace, name.model, f"{name.tag}.json"):
        path /= _as_stored(path, part)
    return path


def _as_stored(folder: Path, part: str) -> str:
    if os.path.exists(folder / part):
        return part
    try:
        stored = os.listdir(folder)
    except OSError:
        return part
    return next((entry for entry in sorted(stored) if entry.lower() == part.lower()), part)
