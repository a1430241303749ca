"""Adds models to the store and removes them; a manifest is written last and removed first.

    hub/models--ORG--REPO/{blobs,snapshots/REVISION}/...   a Hugging Face cache, for other tools too
    manifests/...                                          see `manifests.py`
    locks/models--ORG--REPO.lock                           held to change that folder
    locks/names.lock                                       held shortly to change manifests

Knows nothing of hubs or of configuration. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.errors import BadInput, HostProblem, ModelNotFound, Unavailable, VllamadError
from vllamad.models.store.manifests import (
    Manifest,
    StoredFile,
    digest_of,
    list_manifests,
    load_manifest,
    manifest_path,
    write_manifest,
)
from vllamad.models.store.safe_files import list_files, open_regular, safe_path, sync_folder

_CHUNK = 1 << 20
_LOCK_INTERVAL = 0.2  # seconds between two tries for a lock

# (file name, bytes hashed, size)
HashProgress = Callable[[str, int, int], None]


def hub_folder(models: Path) -> Path:
    """The Hugging Face cache within the store."""
    return models / "hub"


def repository_folder(namespace: str, model: str) -> str:
    """The name a Hugging Face cache gives a repository's folder."""
    return f"models--{namespace}--{model}"


def add_model(
    models: Path,
    name: ModelName,
    folder: Path,
    *,
    source: str,
    revision: str = "",
    license: str = "",
    progress: HashProgress | None = None,
) -> Manifest:
    """Move a checkpoint's folder into the store under `name`; copy it from another filesystem.

    Raises BadInput for hostile file names or links, HostProblem for errors of the disk, and
    Unavailable while another process changes the same repository.
    """
    repository = repository_folder(name.namespace, name.model)
    with repository_lock(models, repository), disk_problems(f"add {name.display()}"):
        _refuse_links(folder)
        files = hash_files(folder, progress)
        content = digest_of(source, revision, files)
        snapshot = (
            hub_folder(models) / repository / "snapshots" / (safe_path(revision or content[:40]))
        )
        if snapshot.exists():  # of an earlier attempt, or the same model again
            shutil.rmtree(snapshot)
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, snapshot)
        return publish_model(
            models, name, snapshot, files, source=source, revision=revision, license=license
        )


def publish_model(
    models: Path,
    name: ModelName,
    snapshot: Path,
    files: tuple[StoredFile, ...],
    *,
    source: str,
    revision: str,
    license: str = "",
    variant: str = "",
) -> Manifest:
    """Sync the files in `snapshot`, a folder of the hub cache, and write their manifest.

    The files of the former model of that name are removed, unless another name uses them. The
    caller holds `repository_lock`.
    """
    paths = {snapshot / file.path for file in files}
    for path in paths:
        _make_readable_and_sync(path)
    inside = {parent for parent in snapshot.parents if parent.is_relative_to(models)}
    for folder in (
        inside | {path.parent for path in paths} | {path.resolve().parent for path in paths}
    ):
        sync_folder(folder)
    new = Manifest(
        name=name.canonical(),
        source=source,
        revision=revision,
        folder=str(snapshot.relative_to(models)),
        files=files,
        digest=digest_of(source, revision, files),
        license=license,
        variant=variant,
        created=time.time(),
    )
    manifest, before = replace_manifest(models, name, lambda: new)
    if before and _repository(models, before) == _repository(models, manifest):
        discard_snapshot(models, before.folder)
    return manifest


def _repository(models: Path, manifest: Manifest) -> Path:
    return repository_of(models, manifest.folder)


class ManifestChange(NamedTuple):
    """The manifest of a name, and the one it replaced."""

    now: Manifest
    before: Manifest | None


def replace_manifest(models: Path, name: ModelName, make: Callable[[], Manifest]) -> ManifestChange:
    """Write the manifest that `make` returns; `make` is called with the lock of all names held.

    The files of the former manifest are left to the caller.
    """
    with names_lock(models), disk_problems(f"write {name.display()}"):
        before = current_manifest(models, name)
        now = write_manifest(models, make())
        if before is not None:
            _rebase_derived(models, before)
    return ManifestChange(now, before)


def remove_name(models: Path, name: ModelName) -> Manifest:
    """Remove the manifest of `name`; its files are left to the caller. Raises ModelNotFound."""
    path = manifest_path(models, name)
    with names_lock(models), disk_problems(f"remove {name.display()}"):
        if not path.exists():
            raise ModelNotFound(f"model '{name.display()}' not found")
        manifest = load_manifest(models, path)
        path.unlink()
        sync_folder(path.parent)
        _rebase_derived(models, manifest)
    return manifest


def current_manifest(models: Path, name: ModelName) -> Manifest | None:
    """The manifest of `name`; None where it is missing or invalid."""
    try:
        return load_manifest(models, manifest_path(models, name))
    except VllamadError:
        return None


def _rebase_derived(models: Path, old: Manifest) -> None:
    """Give the models derived from a removed or replaced base a new base.

    The first of them becomes the base of the others, so they keep sharing one worker.
    """
    now = current_manifest(models, parse_model_name(old.name))
    if old.base or (now is not None and now.folder == old.folder and not now.base):
        return
    derived = [
        other
        for other in list_manifests(models).manifests
        if other.folder == old.folder and other.base == old.name
    ]
    for number, manifest in enumerate(derived):
        base = derived[0].name if number else ""
        write_manifest(models, msgspec.structs.replace(manifest, base=base))


def repository_of(models: Path, folder: str) -> Path:
    """The folder of the repository that contains a manifest's `folder`."""
    return models.joinpath(*Path(folder).parts[:2])


def hash_files(folder: Path, progress: HashProgress | None = None) -> tuple[StoredFile, ...]:
    """Hash every file of a model. BadInput for a hostile name, HostProblem for a bad file."""
    names = [safe_path(name) for name, _ in list_files(folder)]
    if not names:
        raise BadInput(f"cannot use {folder}: it holds no files")
    return tuple(hash_file(folder, name, progress) for name in names)


def hash_file(folder: Path, name: str, progress: HashProgress | None = None) -> StoredFile:
    """Hash one file of a model. Raises HostProblem where it cannot be read."""
    digest = hashlib.sha256()
    done = 0
    with open_regular(folder / name) as (file, size):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(name, done, size)
    return StoredFile(path=name, size=done, sha256=digest.hexdigest())


@contextmanager
def repository_lock(
    models: Path, repository: str, meanwhile: Callable[[], None] | None = None
) -> Generator[None]:
    """Hold the lock of a repository's folder; the kernel releases it when its process dies.

    While another process holds it: raises Unavailable, or with `meanwhile` waits and calls that.
    """
    path = models / "locks" / f"{repository}.lock"
    with disk_problems("lock the model store"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        while not _try_lock(file):
            if meanwhile is None:
                raise Unavailable(
                    f"cannot change {repository}: another pull or removal of it is going on",
                    hint="try again when that has ended",
                )
            meanwhile()
            threading.Event().wait(_LOCK_INTERVAL)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def names_lock(models: Path) -> Generator[None]:
    """Hold the lock of all manifests; others wait for it, as it is held for milliseconds."""
    path = models / "locks" / "names.lock"
    with disk_problems("lock the model store"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_problems(action: str) -> Generator[None]:
    """Translate an OSError into a HostProblem that says that `action` failed."""
    try:
        yield
    except OSError as error:
        hint = "free some space and try again" if error.errno == errno.ENOSPC else ""
        raise HostProblem(f"cannot {action}: {error.strerror or error}", hint=hint) from error


def _refuse_links(folder: Path) -> None:
    for below, folders, names in os.walk(folder):
        for name in folders + names:
            if os.path.islink(os.path.join(below, name)):
                raise BadInput(
                    f"cannot add {folder}: {name} is a link", hint="replace the link by its file"
                )


def _make_readable_and_sync(path: Path) -> None:
    """Make a file readable for the account the engine runs as, and sync it to the disk."""
    with open_regular(path) as (file, _):
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


def is_used(models: Path, folder: str) -> bool:
    """Whether any model has its files in `folder`."""
    return any(other.folder == folder for other in list_manifests(models).manifests)


def discard_snapshot(models: Path, folder: str) -> None:
    """Remove a snapshot that no manifest names, and the blobs that no snapshot links to.

    The caller holds `repository_lock`.
    """
    if not folder or is_used(models, folder):
        return
    if (models / folder).exists():
        shutil.rmtree(models / folder)
    repository = repository_of(models, folder)
    if not any(repository.glob("snapshots/*")):
        shutil.rmtree(repository, ignore_errors=True)
        return
    links = repository.glob("snapshots/**/*")
    used = {os.path.realpath(path) for path in links if path.is_symlink()}
    for blob in repository.glob("blobs/*"):
        if os.path.realpath(blob) not in used:
            blob.unlink()
