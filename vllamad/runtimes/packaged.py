"""Checks files taken from a package against a known SHA-256."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

from vllamad.errors import RuntimeProblem


def verify_file(path: Path, *, sha256: str, source: str) -> None:
    """Raise RuntimeProblem unless the file at `path`, taken from `source`, has that hash."""
    try:
        with path.open("rb") as file:
            actual = file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RuntimeProblem(f"cannot find {path.name} in {source}") from error
    if actual != sha256:
        raise RuntimeProblem(
            f"cannot trust {path.name} of {source}: its sha256 is {actual}, not {sha256}"
        )
