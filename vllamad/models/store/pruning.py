"""Removes unused files of the store: old revisions, partial downloads, unused uploads.

Everything here blocks.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vllamad.errors import HostProblem, Unavailable, VllamadError
from vllamad.models.store import model_store
from vllamad.models.store.manifests import load_manifest, manifest_paths
from vllamad.protocol.control import Progress

FRESH = 3600.0  # seconds for which an upload is kept for a model to be made of it

Report = Callable[[Progress], None]


def prune_store(models: Path, report: Report, *, dry_run: bool) -> None:
    """Remove the files that no manifest needs, with a report of each; with `dry_run` only report.

    A repository that is being pulled is skipped. Raises HostProblem where a manifest cannot be
    read, since the files it needs are then unknown.
    """
    _used_folders(models)
    for repository in sorted(model_store.hub_folder(models).glob("models--*")):
        try:
            with model_store.repository_lock(models, repository.name):
                _prune_repository(models, repository, report, dry_run=dry_run)
        except Unavailable:
            continue
    with model_store.disk_problems("prune the uploads"):
        for blob in sorted((models / "blobs").glob("*")):
            _prune_upload(models, blob, report, dry_run=dry_run)


def _used_folders(models: Path) -> set[str]:
    """The folders of all models, incomplete ones included."""
    used: set[str] = set()
    for path in manifest_paths(models):
        try:
            used.add(load_manifest(models, path).folder)
        except VllamadError as error:
            raise HostProblem(
                f"cannot prune: {error.message}",
                hint="pull its model again, or remove the manifest",
            ) from error
    return used


def _prune_repository(models: Path, repository: Path, report: Report, *, dry_run: bool) -> None:
    used = _used_folders(models)
    with model_store.disk_problems(f"prune {repository.name}"):
        kept: list[Path] = []
        for snapshot in sorted(repository.glob("snapshots/*")):
            if str(snapshot.relative_to(models)) in used:
                kept.append(snapshot)
                continue
            report(_step(models, snapshot, _own_size(snapshot), "a revision that no model uses"))
            if not dry_run:
                shutil.rmtree(snapshot)
        linked = {os.path.realpath(path) for snapshot in kept for path in snapshot.rglob("*")}
        for blob in sorted(repository.glob("blobs/*")):
            if os.path.realpath(blob) in linked:
                continue
            part = blob.name.endswith(".incomplete")
            why = "part of an unfinished pull" if part else "a file that no model uses"
            report(_step(models, blob, blob.lstat().st_size, why))
            if not dry_run:
                blob.unlink()
        if not kept and not dry_run:
            shutil.rmtree(repository)


def _prune_upload(models: Path, blob: Path, report: Report, *, dry_run: bool) -> None:
    """Remove an old blob, unless a model's file is a hard link to it."""
    facts = blob.lstat()
    if facts.st_nlink > 1 or time.time() - facts.st_mtime < FRESH:
        return
    report(_step(models, blob, facts.st_size, "an upload that no model was made of"))
    if not dry_run:
        blob.unlink()


def _own_size(folder: Path) -> int:
    """The bytes that removing `folder` frees: of files that are neither links nor hard-linked."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        facts = path.lstat()
        if path.is_file() and not path.is_symlink() and facts.st_nlink == 1:
            yield facts.st_size


def _step(models: Path, path: Path, size: int, why: str) -> Progress:
    return Progress(
        status="unneeded", file=str(path.relative_to(models)), problem=why, completed=size,
        total=size,
    )  # fmt: skip
