"""Files out of a package, believed only where their bytes are the ones we know."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path

from vllamad.errors import RuntimeProblem


def verify_file(path: Path, *, sha256: str, source: str) -> None:
    """Raise RuntimeProblem unless the file at `path`, out of `source`, has that hash."""
    try:
        with path.open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise RuntimeProblem(f"cannot find {path.name} in {source}") from error
    if found != sha256:
        raise RuntimeProblem(
            f"cannot trust {path.name} of {source}: its sha256 is {found}, not {sha256}"
        )
