"""Lists the packages of an environment, and checks their files against their records.

Each package lists its files with their hashes in its RECORD (packaging.python.org, "Recording
installed projects"). Knows nothing of installers.
"""

from __future__ import annotations

import re
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path


def package_versions(runtime: Path) -> dict[str, str]:
    """Name and version of each package of the environment in `runtime`."""
    return {name: found.version for name, found in _installed(runtime)}


def damaged_packages(runtime: Path) -> dict[str, str]:
    """The fault of each package whose files differ from its record: "3 files missing: ...".

    Reads all files: seconds for a CPU runtime on a fast disk.
    """
    installed = list(_installed(runtime))
    with ThreadPoolExecutor(4) as readers:
        faults = readers.map(_fault, [found for _, found in installed])
        return {name: fault for (name, _), fault in zip(installed, faults, strict=True) if fault}


def remove_unrecorded(runtime: Path) -> list[str]:
    """Remove the metadata of packages without a record: an install was interrupted.

    No installer can replace such a package. Returns the names of the packages.
    """
    incomplete = [
        folder
        for site in site_packages(runtime)
        for folder in site.glob("*.dist-info")
        if not ((folder / "RECORD").is_file() and (folder / "METADATA").is_file())
    ]
    for folder in incomplete:
        shutil.rmtree(folder)
    return sorted(_normal(folder.name.partition("-")[0]) for folder in incomplete)


def site_packages(runtime: Path) -> list[Path]:
    """The site-packages folders of the environment in `runtime`."""
    return list(runtime.glob("lib/python3*/site-packages"))


def _installed(runtime: Path) -> Iterator[tuple[str, Distribution]]:
    for found in distributions(path=[str(site) for site in site_packages(runtime)]):
        name: str | None = found.metadata["Name"]
        if name:
            yield _normal(name), found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _fault(found: Distribution) -> str:
    if found.files is None:
        return "its list of files is missing"
    missing: list[str] = []
    changed: list[str] = []
    for file in found.files:
        if file.hash is None or file.hash.mode != "sha256":
            continue  # compiled by Python, or the record itself
        path = Path(str(found.locate_file(file)))
        if not path.is_file():
            missing.append(str(file))
        elif not _is_as_recorded(path, file):
            changed.append(str(file))
    return "; ".join(
        f"{_count(files)} {how}: {files[0]}{' ...' if files[1:] else ''}"
        for how, files in (("missing", missing), ("changed", changed))
        if files
    )


def _is_as_recorded(path: Path, file: PackagePath) -> bool:
    if file.size is not None and path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        digest = file_digest(content, "sha256").digest()
    assert file.hash is not None
    return urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def _count(files: list[str]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"
