"""Finds the local files that a Modelfile names, and uploads them by their digests."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from vllamactl.ollama_client import OllamaClient
from vllamad.errors import BadInput, HostProblem
from vllamad.protocol.control import Progress

_CHUNK = 1 << 20
_REPORT_INTERVAL = 0.1  # seconds between two reports of one file
_SUFFIXES = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")
_DEPTH = 2  # nesting of folders: sentence-transformers has a config in the folder of each module

Report = Callable[[Progress], None]


def local_path(text: str, beside: Path) -> Path:
    """Resolve a path in a Modelfile: ~ is the home, others are relative to the Modelfile."""
    try:
        return beside / Path(text).expanduser()
    except RuntimeError as error:
        raise BadInput(f"cannot find {text}: {error}") from error


def files_at(path: Path) -> dict[str, Path]:
    """Return the files of a checkpoint or an adapter, by their names on the server.

    Links are followed, since a hub cache consists of them. Raises BadInput if there are no files.
    """
    if not path.is_dir():
        return {path.name: path}
    files = {str(file.relative_to(path)): file for file in _below(path, _DEPTH)}
    if not files:
        raise BadInput(
            f"cannot use {path}: it holds no files of a model",
            hint="a checkpoint has a config.json and .safetensors files",
        )
    return files


def upload(api: OllamaClient, files: dict[str, Path], report: Report) -> dict[str, str]:
    """Upload the files that the server lacks; return the digest of each, by name."""
    digests: dict[str, str] = {}
    for name, path in files.items():
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest = _digest(_Counted(file, f"hashing {name}", size, report))
            digests[name] = digest
            if not api.has_blob(digest):
                file.seek(0)
                counted = _Counted(file, f"uploading {name}", size, report)
                api.upload(digest, counted, size)
    return digests


class _Counted:
    """A file that reports how far it has been read."""

    def __init__(self, file: BinaryIO, status: str, size: int, report: Report) -> None:
        self._file = file
        self._status = status
        self._size = size
        self._report = report
        self._done = 0
        self._reported_at = 0.0

    def read(self, count: int = _CHUNK) -> bytes:
        data = self._file.read(count)
        self._done += len(data)
        now = time.monotonic()
        if data and (self._done >= self._size or now - self._reported_at >= _REPORT_INTERVAL):
            self._reported_at = now
            step = Progress(status=self._status, completed=self._done, total=self._size)
            self._report(step)
        return data


def _digest(file: _Counted) -> str:
    digest = hashlib.sha256()
    while data := file.read():
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise HostProblem(f"cannot read {folder}: {_reason(error)}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and depth > 1:
            yield from _below(entry, depth - 1)
        elif entry.is_file() and (entry.suffix in _SUFFIXES or entry.name.startswith("LICENSE")):
            yield entry


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise HostProblem(f"cannot read {path}: it is not a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise HostProblem(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
