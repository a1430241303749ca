"""Opens, reads and lists the files of a model folder without trusting any of them.

Only regular files are touched, never more bytes than the caller allows, and no name may lead out.
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
    """Return a relative file name as it stands, or raise BadInput where it could lead elsewhere."""
    parts = text.split("/")
    if any(sign in text for sign in "\\:\0") or any(part in ("", ".", "..") for part in parts):
        raise BadInput(
            f"cannot use the file name {text[:80]!r}: it leads out of the model's folder"
        )
    return text


@contextmanager
def open_regular(path: Path) -> Generator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, with its size in bytes.

    A device, FIFO or folder raises HostProblem and is never waited for; so does a missing file.
    """
    try:
        # O_NONBLOCK: opening a FIFO or a device must not wait for somebody at its other end.
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
        # The size is asked again by reading: a file may grow after fstat.
        data = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(data) > limit:
            raise BadInput(f"cannot read {path.name}: it holds more than {limit} bytes")
        return data


def list_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Name every regular file below `folder`, hidden ones left out, with what stat says of it.

    Links are followed for files, never for folders. Raises HostProblem for a missing folder, for a
    link that goes in circles, and for more than 10 000 files.
    """
    count = 0
    pending = [""]
    while pending:
        below = pending.pop()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except OSError as error:
            raise HostProblem(f"cannot read {folder}: {error.strerror}") from error
        for entry in entries:
            name = below + entry.name
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
    """None for what is no regular file, leads nowhere, or has just gone."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostProblem(f"cannot read {entry.name}: {error.strerror}") from error
    return status if stat.S_ISREG(status.st_mode) else None


def sync_folder(folder: Path) -> None:
    """Make what was just created, renamed or removed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
