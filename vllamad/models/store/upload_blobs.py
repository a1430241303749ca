"""Blobs: files that clients upload to make a model of, named by their SHA-256.

    blobs/sha256-HEX

The only folder of the store that a gateway writes to; unused blobs are removed after a day. Every
digest is checked before a path is made of it. Everything here blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from vllamad.errors import BadInput, HostProblem
from vllamad.models.store.model_store import disk_problems
from vllamad.models.store.safe_files import sync_folder

BLOB_LIMIT = 16 << 30  # bytes; the files of checkpoints usually have 5 GB each
SPACE_RESERVE = 1 << 30  # bytes of the disk that uploads leave free
_CHECK_EVERY = 64 << 20  # bytes between two checks of the free space
_MAX_AGE = 24 * 3600.0  # seconds

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def blob_path(models: Path, digest: str) -> Path:
    """The path of the blob with that digest. Raises BadInput with Ollama's text."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadInput("invalid digest format")
    return models / "blobs" / f"sha256-{match[1]}"


class BlobWriter:
    """Writes one blob, from `begin` to `end`; `end` removes a partial file.

    Raises BadInput for a blob over the limit, HostProblem for errors of the disk.
    """

    def __init__(self, models: Path, digest: str) -> None:
        self._digest = digest
        self._path = blob_path(models, digest)
        self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        self._file: BinaryIO
        self._hash = hashlib.sha256()
        self._size = 0

    def begin(self) -> None:
        with disk_problems("store the blob"):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._part.open("xb")

    def end(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        before, self._size = self._size, self._size + len(data)
        if self._size > BLOB_LIMIT:
            raise BadInput(f"cannot store a blob of more than {BLOB_LIMIT} bytes", status=413)
        if before // _CHECK_EVERY != self._size // _CHECK_EVERY or not before:
            self._check_space()
        self._hash.update(data)
        with disk_problems("store the blob"):
            self._file.write(data)

    def finish(self) -> None:
        """Sync the blob and make it visible. Raises BadInput if its digest is another."""
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self._digest:
            raise BadInput(f'digest mismatch, expected "{self._digest}", got "{actual}"')
        with disk_problems("store the blob"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.replace(self._path)
            sync_folder(self._path.parent)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if free < SPACE_RESERVE + _CHECK_EVERY:
            raise HostProblem(
                f"cannot store the blob: the disk has {free >> 20} MiB left",
                hint="free some space and try again",
            )


def release_blobs(models: Path, digests: Iterable[str]) -> None:
    """Remove the blobs with these SHA-256 digests, in hex, that no model uses any more."""
    for digest in digests:
        path = blob_path(models, f"sha256:{digest}")
        try:
            if path.stat().st_nlink == 1:  # a model's file is a hard link to its blob
                path.unlink()
        except FileNotFoundError:
            continue


def remove_old_blobs(models: Path) -> None:
    """Remove partial blobs, and blobs that are older than a day.

    Call it only while no upload is going on. The store of an Ollama server, where blobs have the
    same names, is not touched.
    """
    if _is_ollamas(models):
        return
    for path in (models / "blobs").glob("*"):
        if path.name.startswith(".") or time.time() - path.stat().st_mtime > _MAX_AGE:
            path.unlink()


def _is_ollamas(models: Path) -> bool:
    """Whether the store has a manifest in the format of Ollama's registry."""
    for path in (models / "manifests").rglob("*"):
        if path.is_file() and b'"schemaVersion"' in path.read_bytes():
            return True
    return False
