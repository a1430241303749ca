"""Which local files a Modelfile names, and bringing them to the server by their digests."""

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
_EVERY = 0.1  # seconds between two steps about one file
_SUFFIXES = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")
_DEPTH = 2  # folders below each other: sentence-transformers keep a config in each module's

Report = Callable[[Progress], None]


def local_path(text: str, beside: Path) -> Path:
    """Where a path in a Modelfile leads: ~ is the home, all else is from the Modelfile's folder."""
    try:
        return beside / Path(text).expanduser()
    except RuntimeError as error:
        raise BadInput(f"cannot find {text}: {error}") from error


def files_at(path: Path) -> dict[str, Path]:
    """The files of a checkpoint or an adapter, by the name the server shall know them under.

    Links are followed, as a hub cache is made of them. Raises BadInput where there are none.
    """
    if not path.is_dir():
        return {path.name: path}
    found = {str(file.relative_to(path)): file for file in _below(path, _DEPTH)}
    if not found:
        raise BadInput(
            f"cannot use {path}: it holds no files of a model",
            hint="a checkpoint has a config.json and .safetensors files",
        )
    return found


def upload(api: OllamaClient, files: dict[str, Path], report: Report) -> dict[str, str]:
    """Bring the files to the server, but those it has; the digest of each, by name."""
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
    """A file that tells how far it has been read."""

    def __init__(self, file: BinaryIO, status: str, size: int, report: Report) -> None:
        self._file = file
        self._status = status
        self._size = size
        self._report = report
        self._done = 0
        self._told = 0.0

    def read(self, count: int = _CHUNK) -> bytes:
        data = self._file.read(count)
        self._done += len(data)
        now = time.monotonic()
        if data and (self._done >= self._size or now - self._told >= _EVERY):
            self._told = now
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
        raise HostProblem(f"cannot read {path}: it is no file")
    try:
        return path.open("rb")
    except OSError as error:
        raise HostProblem(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
