"""What lies in the store and no model needs: old revisions, the rest of pulls, unused uploads.

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

FRESH = 3600.0  # seconds in which an upload may still become a model

Report = Callable[[Progress], None]


def prune_store(models: Path, report: Report, *, dry_run: bool) -> None:
    """Remove what no manifest needs, with a step for each thing; with `dry_run`, only tell.

    What is being pulled is left alone. Raises HostProblem where a manifest cannot be read: who
    knows what it needs.
    """
    _used(models)
    for repository in sorted(model_store.hub_folder(models).glob("models--*")):
        try:
            with model_store.repository_lock(models, repository.name):
                _prune_repository(models, repository, report, dry_run=dry_run)
        except Unavailable:
            continue
    with model_store.disk_problems("prune the uploads"):
        for blob in sorted((models / "blobs").glob("*")):
            _prune_upload(models, blob, report, dry_run=dry_run)


def _used(models: Path) -> set[str]:
    """The folders of all models, damaged ones as well."""
    used: set[str] = set()
    for path in manifest_paths(models):
        try:
            used.add(load_manifest(models, path).folder)
        except VllamadError as error:
            raise HostProblem(
                f"cannot prune: {error.message}", hint="remove that manifest, or pull its model"
            ) from error
    return used


def _prune_repository(models: Path, repository: Path, report: Report, *, dry_run: bool) -> None:
    used = _used(models)
    with model_store.disk_problems(f"prune {repository.name}"):
        kept: list[Path] = []
        for snapshot in sorted(repository.glob("snapshots/*")):
            if str(snapshot.relative_to(models)) in used:
                kept.append(snapshot)
                continue
            report(_step(models, snapshot, _own_size(snapshot), "a revision no model uses"))
            if not dry_run:
                shutil.rmtree(snapshot)
        linked = {os.path.realpath(path) for snapshot in kept for path in snapshot.rglob("*")}
        for blob in sorted(repository.glob("blobs/*")):
            if os.path.realpath(blob) in linked:
                continue
            part = blob.name.endswith(".incomplete")
            why = "part of a pull that was not finished" if part else "a file no model uses"
            report(_step(models, blob, blob.lstat().st_size, why))
            if not dry_run:
                blob.unlink()
        if not kept and not dry_run:
            shutil.rmtree(repository)


def _prune_upload(models: Path, blob: Path, report: Report, *, dry_run: bool) -> None:
    """A blob with a second name is a model's file: it costs nothing, and spares another upload."""
    facts = blob.lstat()
    if facts.st_nlink > 1 or time.time() - facts.st_mtime < FRESH:
        return
    report(_step(models, blob, facts.st_size, "uploaded, and no model was made of it"))
    if not dry_run:
        blob.unlink()


def _own_size(folder: Path) -> int:
    """Bytes of the files that are nowhere else: of neither links nor second names."""
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
