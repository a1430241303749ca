"""Opens, reads and lists the files of a model folder without trusting any of them.

Opens only regular files, reads at most as many bytes as the caller allows, and refuses names that
lead out of the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vllamad.errors import BadInput, HostProblem

FILES_LIMIT = 10_000


def safe_path(text: str) -> str:
    """Return a relative file name unchanged. Raises BadInput where it leads out of its folder."""
    parts = text.split("/")
    if any(sign in text for sign in "\\:\0") or any(part in ("", ".", "..") for part in parts):
        raise BadInput(
            f"cannot use the file name {text[:80]!r}: it leads out of the model's folder"
        )
    return text


@contextmanager
def open_regular(path: Path) -> Generator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, with its size in bytes.

    A missing file, a device, a FIFO or a folder raises HostProblem and never blocks.
    """
    try:
        # O_NONBLOCK: opening a FIFO or a device must not wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise HostProblem(f"cannot read {path.name}: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise HostProblem(f"cannot read {path.name}: it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file, facts.st_size


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a whole regular file of at most `limit` bytes. Raises HostProblem or BadInput."""
    with open_regular(path) as (file, size):
        # Checked again after reading, since a file may grow after fstat.
        data = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(data) > limit:
            raise BadInput(f"cannot read {path.name}: it holds more than {limit} bytes")
        return data


def list_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name and status of every regular file below `folder`, except hidden ones.

    Follows links to files, never to folders. Raises HostProblem for a missing folder, a circular
    link, and more than 10 000 files.
    """
    count = 0
    pending = [""]
    while pending:
        subfolder = pending.pop()
        try:
            entries = sorted(os.scandir(folder / subfolder), key=lambda entry: entry.name)
        except OSError as error:
            raise HostProblem(f"cannot read {folder}: {error.strerror}") from error
        for entry in entries:
            name = subfolder + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(name + "/")
            elif status := _status_of_file(entry):
                count += 1
                if count > FILES_LIMIT:
                    raise HostProblem(f"cannot use {folder}: it holds over {FILES_LIMIT} files")
                yield name, status


def _status_of_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The status of a regular file; None for anything else, and for a file removed meanwhile."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostProblem(f"cannot read {entry.name}: {error.strerror}") from error
    return status if stat.S_ISREG(status.st_mode) else None


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that new, renamed and removed entries survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
