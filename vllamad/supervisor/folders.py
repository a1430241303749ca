"""The folders of a daemon at its start: made, and cleared of what a previous daemon left."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from vllamad.config.settings import Settings
from vllamad.errors import HostProblem
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.models.store import derived, upload_blobs

log = logging.getLogger(__name__)


def prepare_folders(settings: Settings, in_use: Collection[str] = ()) -> None:
    """Make our folders, private to us, and remove those of workers that are not `in_use`."""
    paths = settings.paths
    try:
        for folder in (paths.state, paths.cache, paths.logs, paths.run):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        paths.models.mkdir(parents=True, exist_ok=True)
        workers = paths.run / "w"
        workers.mkdir(exist_ok=True)
        workers.chmod(0o700)
        for folder in workers.iterdir():
            if folder.name not in in_use:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise HostProblem(
            f"cannot make {error.filename}: {error.strerror}",
            hint="run vllamad as a user that may write there, or set VLLAMAD_HOME",
        ) from error


def warn_of_noexec(folders: Iterable[Path]) -> None:
    """Warn where compiled code cannot be run: an engine that compiles would fail there later."""
    for folder in folders:
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            fields = {
                "folder": str(folder),
                "why": "it is mounted noexec, and engines compile there",
            }
            text = "cannot run compiled code"
            event(log, logging.WARNING, text, LogEvent.FOLDER_NOEXEC, **fields)


def tidy_store(models: Path) -> None:
    """Remove files that no model needs, before anything can be writing others."""
    try:
        upload_blobs.remove_old_blobs(models)
        derived.remove_unused_adapters(models)
    except OSError as error:
        event(log, logging.WARNING, "cannot tidy the model store", error=str(error))
