"""Files that clients upload before a model is made of them, named by their SHA-256.

    blobs/sha256-HEX

A gateway writes here and nowhere else in the store; what nobody uses is swept away after a day.
No path is made of a digest that was not checked. Everything here blocks.
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

BLOB_LIMIT = 16 << 30  # bytes; a checkpoint's own files are 5 GB each by custom
SPACE_RESERVE = 1 << 30  # bytes of the disk that uploads leave alone
_CHECK_EVERY = 64 << 20  # bytes between two looks at the free space
_UNUSED_FOR = 24 * 3600.0  # seconds

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def blob_path(models: Path, digest: str) -> Path:
    """Where the blob of that digest is, or would be. Raises BadInput with Ollama's text."""
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise BadInput("invalid digest format")
    return models / "blobs" / f"sha256-{found[1]}"


class BlobWriter:
    """A blob being written, from `begin` to `end`, which leaves no half of it behind.

    Raises BadInput for too much of it, HostProblem where the disk says no.
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
            raise BadInput(f"cannot take a blob over {BLOB_LIMIT} bytes", status=413)
        if before // _CHECK_EVERY != self._size // _CHECK_EVERY or not before:
            self._check_space()
        self._hash.update(data)
        with disk_problems("store the blob"):
            self._file.write(data)

    def finish(self) -> None:
        """Make the blob visible, safe on disk. Raises BadInput for other bytes than announced."""
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
    """Remove the blobs of files, by their SHA-256 in hex, that no model is made of any more."""
    for digest in digests:
        path = blob_path(models, f"sha256:{digest}")
        try:
            if path.stat().st_nlink == 1:  # a model's file is a second name of its blob
                path.unlink()
        except FileNotFoundError:
            continue


def remove_old_blobs(models: Path) -> None:
    """Remove what was half written, and blobs that no model was made of within a day.

    Only for a time when no upload is going on. The store of an Ollama server, where blobs have the
    same names, is left alone.
    """
    if _is_ollamas(models):
        return
    for path in (models / "blobs").glob("*"):
        if path.name.startswith(".") or time.time() - path.stat().st_mtime > _UNUSED_FOR:
            path.unlink()


def _is_ollamas(models: Path) -> bool:
    """Whether a manifest there is one of a registry, as Ollama keeps them."""
    for path in (models / "manifests").rglob("*"):
        if path.is_file() and b'"schemaVersion"' in path.read_bytes():
            return True
    return False
