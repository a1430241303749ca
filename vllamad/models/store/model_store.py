"""Takes models into the store and out of it; a manifest comes last and goes first.

    hub/models--ORG--REPO/{blobs,snapshots/REVISION}/...   a Hugging Face cache, for other tools too
    manifests/...                                          see `manifests.py`
    locks/models--ORG--REPO.lock                           held by whoever changes that folder
    locks/names.lock                                       held, shortly, to change what names mean

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
_LOOK_INTERVAL = 0.2  # seconds between two looks at a lock somebody holds

# file name, bytes of it done, bytes of it in all
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
    """Move a checkpoint's folder into the store under `name`; copied where it must be.

    Raises BadInput for hostile file names or links, HostProblem where the disk says no, and
    Unavailable while somebody else changes the same repository.
    """
    repository = repository_folder(name.namespace, name.model)
    with repository_lock(models, repository), disk_problems(f"add {name.display()}"):
        _refuse_links(folder)
        files = hash_files(folder, progress)
        content = digest_of(source, revision, files)
        place = (
            hub_folder(models) / repository / "snapshots" / (safe_path(revision or content[:40]))
        )
        if place.exists():  # of an earlier attempt, or the same model again
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, place)
        return publish_model(
            models, name, place, files, source=source, revision=revision, license=license
        )


def publish_model(
    models: Path,
    name: ModelName,
    place: Path,
    files: tuple[StoredFile, ...],
    *,
    source: str,
    revision: str,
    license: str = "",
    variant: str = "",
) -> Manifest:
    """Make files that lie in the hub cache visible under `name`, once they are safe on disk.

    What the name meant before is removed, unless another name uses it. The caller holds
    `changing` for the repository.
    """
    paths = {place / file.path for file in files}
    for path in paths:
        _settle(path)
    inside = {parent for parent in place.parents if parent.is_relative_to(models)}
    for folder in (
        inside | {path.parent for path in paths} | {path.resolve().parent for path in paths}
    ):
        sync_folder(folder)
    made = Manifest(
        name=name.canonical(),
        source=source,
        revision=revision,
        folder=str(place.relative_to(models)),
        files=files,
        digest=digest_of(source, revision, files),
        license=license,
        variant=variant,
        created=time.time(),
    )
    manifest, before = replace_manifest(models, name, lambda: made)
    if before and _repository(models, before) == _repository(models, manifest):
        discard_snapshot(models, before.folder)
    return manifest


def _repository(models: Path, manifest: Manifest) -> Path:
    return repository_of(models, manifest.folder)


class ManifestChange(NamedTuple):
    """What a name means now, and what it meant before."""

    now: Manifest
    before: Manifest | None


def replace_manifest(models: Path, name: ModelName, make: Callable[[], Manifest]) -> ManifestChange:
    """Let `name` mean what `make` says, called while nobody else changes any name.

    The files of what it meant before are left to the caller.
    """
    with names_lock(models), disk_problems(f"write {name.display()}"):
        before = current_manifest(models, name)
        now = write_manifest(models, make())
        if before is not None:
            _hand_on(models, before)
    return ManifestChange(now, before)


def remove_name(models: Path, name: ModelName) -> Manifest:
    """Let `name` mean nothing; its files are left to the caller. Raises ModelNotFound."""
    path = manifest_path(models, name)
    with names_lock(models), disk_problems(f"remove {name.display()}"):
        if not path.exists():
            raise ModelNotFound(f"model '{name.display()}' not found")
        manifest = load_manifest(models, path)
        path.unlink()
        sync_folder(path.parent)
        _hand_on(models, manifest)
    return manifest


def current_manifest(models: Path, name: ModelName) -> Manifest | None:
    """What `name` means now; None for nothing, or for nothing that could be used."""
    try:
        return load_manifest(models, manifest_path(models, name))
    except VllamadError:
        return None


def _hand_on(models: Path, gone: Manifest) -> None:
    """Give the models derived from one that is gone, or has other files now, a base of their own.

    The first of them takes its place: they went on sharing one worker, and do so still.
    """
    now = current_manifest(models, parse_model_name(gone.name))
    if gone.base or (now is not None and now.folder == gone.folder and not now.base):
        return
    heirs = [
        other
        for other in list_manifests(models).manifests
        if other.folder == gone.folder and other.base == gone.name
    ]
    for number, heir in enumerate(heirs):
        write_manifest(models, msgspec.structs.replace(heir, base=heirs[0].name if number else ""))


def repository_of(models: Path, folder: str) -> Path:
    """The repository's folder that a manifest's `folder` lies in."""
    return models.joinpath(*Path(folder).parts[:2])


def hash_files(folder: Path, progress: HashProgress | None = None) -> tuple[StoredFile, ...]:
    """Hash every file of a model. BadInput for a hostile name, HostProblem for a bad file."""
    found = [safe_path(name) for name, _ in list_files(folder)]
    if not found:
        raise BadInput(f"cannot use {folder}: it holds no files")
    return tuple(hash_file(folder, name, progress) for name in found)


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
    """Be the only process that changes a repository's folder; a dead owner's lock is no lock.

    Raises Unavailable while another one is, or waits for it, calling `meanwhile` now and then.
    """
    path = models / "locks" / f"{repository}.lock"
    with disk_problems("lock the model store"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        while not _locked(file):
            if meanwhile is None:
                raise Unavailable(
                    f"cannot change {repository}: another pull or removal of it is going on"
                )
            meanwhile()
            threading.Event().wait(_LOOK_INTERVAL)
        yield


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def names_lock(models: Path) -> Generator[None]:
    """Be the only one that changes what names mean; others wait, as it takes milliseconds."""
    path = models / "locks" / "names.lock"
    with disk_problems("lock the model store"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_problems(what: str) -> Generator[None]:
    """Turn whatever the filesystem refuses into a HostProblem that says `what` failed."""
    try:
        yield
    except OSError as error:
        hint = "free some space and try again" if error.errno == errno.ENOSPC else ""
        raise HostProblem(f"cannot {what}: {error.strerror or error}", hint=hint) from error


def _refuse_links(folder: Path) -> None:
    for below, folders, names in os.walk(folder):
        for name in folders + names:
            if os.path.islink(os.path.join(below, name)):
                raise BadInput(f"cannot add {folder}: {name} is a link")


def _settle(path: Path) -> None:
    """Readable for the account the engine runs as, and safe from a power cut."""
    with open_regular(path) as (file, _):
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


def is_used(models: Path, folder: str) -> bool:
    """Does any model have its files in `folder`?"""
    return any(other.folder == folder for other in list_manifests(models).manifests)


def discard_snapshot(models: Path, folder: str) -> None:
    """Remove a snapshot no manifest names, and the blobs no snapshot links to.

    The caller holds `changing` for the repository.
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
