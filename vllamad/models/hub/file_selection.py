"""Chooses the files of a repository to download, before any byte is fetched.

Takes safetensors weights and the small files beside them; never code, never pickles. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vllamad.errors import BadInput, HostProblem
from vllamad.models.checkpoint.weights import weight_files
from vllamad.models.store.safe_files import FILES_LIMIT, safe_path

# Kept free besides the files, for logs and restarts.
SPACE_RESERVE = 1 << 30  # bytes

WANTED = (
    "*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken",
    "LICENSE*", "LICENCE*", "README.md",
)  # fmt: skip
# The layers sentence-transformers adds: 1_Pooling/config.json, 2_Dense/model.safetensors, ...
_MODULE_FOLDER = re.compile(r"\d+_\w+")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file as the hub describes it; `digest` is what its bytes must hash to, in hex."""

    path: str
    size: int
    digest: str
    large: bool = False  # stored outside git: `digest` is a SHA-256, else the git blob hash


def choose_files(repository: str, files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Choose the files to fetch, small ones first. Raises BadInput for an unusable repository."""
    files = tuple(files)
    _refuse_gguf(repository, [file.path for file in files])
    wanted = {file.path: file for file in files if is_wanted(file.path)}
    if len(wanted) > FILES_LIMIT:
        raise BadInput(f"cannot pull {repository}: it has over {FILES_LIMIT} files")
    if "config.json" not in wanted:
        raise BadInput(
            f"cannot pull {repository}: it has no config.json",
            hint="pull a repository with a complete model in Hugging Face's format",
        )
    try:
        weights = set(weight_files(wanted, {}))
    except BadInput as error:
        raise BadInput(
            f"cannot pull {repository}: it has no safetensors weights", hint=error.hint
        ) from error
    beside = {path for path in wanted if path.endswith(".safetensors") and "/" not in path}
    chosen = [file for path, file in wanted.items() if path in weights or path not in beside]
    for file in chosen:
        _check(file)
    return tuple(sorted(chosen, key=lambda file: (file.large, file.path)))


def _refuse_gguf(repository: str, paths: Iterable[str]) -> None:
    endings = {path.rpartition(".")[2].lower() for path in paths}
    if "gguf" in endings and "safetensors" not in endings:
        raise BadInput(
            f"cannot pull {repository}: it holds GGUF files, which vllamad does not serve",
            hint="pull the safetensors repository it was converted from",
        )


def check_space(repository: str, needed: int, free: int) -> None:
    """Raise HostProblem where `needed` bytes would nearly fill the disk."""
    room = free - SPACE_RESERVE - needed // 20
    if needed > max(0, room):
        raise HostProblem(
            f"cannot pull {repository}: it needs {needed >> 20} MiB, the disk has room for"
            f" {max(0, room) >> 20} MiB more",
            hint="free some space (`vllamactl prune`), or set paths.models to a larger disk",
        )


def _check(file: RemoteFile) -> None:
    """Raise BadInput for an unsafe path, or a missing size or digest."""
    safe_path(file.path)
    if file.size < 0 or not (_SHA256 if file.large else _SHA1).fullmatch(file.digest):
        raise BadInput(f"cannot use {file.path[:80]}: the hub gives no size or digest for it")


def is_wanted(path: str) -> bool:
    """Whether the engine can use a file of that name."""
    folder, _, name = path.rpartition("/")
    in_place = not folder or bool(_MODULE_FOLDER.fullmatch(folder))
    return in_place and any(fnmatchcase(name, pattern) for pattern in WANTED)
