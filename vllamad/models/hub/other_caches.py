"""Finds the models that other tools have downloaded into a Hugging Face cache; copies nothing.

    CACHE/models--ORG--REPO/refs/REF         the commit of a branch or tag
    CACHE/models--ORG--REPO/snapshots/COMMIT its files

`org/repo` is the branch `main`, `org/repo:REF` another. Reads names only, no file of a model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vllamad.core.model_name import DEFAULT_TAG, ModelName, parse_model_name
from vllamad.errors import BadInput

_FOLDER = re.compile(r"models--([^/]+?)--([^/]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF_LIMIT = 64  # bytes of a file that names a commit


def list_cached(caches: Iterable[Path]) -> Iterator[tuple[ModelName, Path]]:
    """Every name in the caches with its folder; of equal names the first cache wins."""
    seen: set[str] = set()
    for cache in caches:
        for repository in _entries(cache):
            if not (folder_name := _FOLDER.fullmatch(repository)):
                continue
            for ref in _entries(cache / repository / "refs"):
                name = _name(folder_name[1], folder_name[2], ref)
                folder = _snapshot(cache / repository, ref)
                if name and folder and name.key() not in seen:
                    seen.add(name.key())
                    yield name, folder


def find_cached(caches: Iterable[Path], name: ModelName) -> tuple[ModelName, Path] | None:
    """Find `name`, in any case, in the caches: the name as spelled there, and its folder."""
    key = name.key()
    return next((entry for entry in list_cached(caches) if entry[0].key() == key), None)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # missing or not readable
        return []


def _name(namespace: str, model: str, ref: str) -> ModelName | None:
    try:
        return parse_model_name(f"{namespace}/{model}:{DEFAULT_TAG if ref == 'main' else ref}")
    except BadInput:
        return None  # not a valid model name


def _snapshot(repository: Path, ref: str) -> Path | None:
    try:
        with (repository / "refs" / ref).open("rb") as file:
            commit = file.read(_REF_LIMIT).decode("ascii", "replace").strip()
    except OSError:
        return None
    folder = repository / "snapshots" / commit
    return folder if _COMMIT.fullmatch(commit) and folder.is_dir() else None
