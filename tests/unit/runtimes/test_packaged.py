"""A file out of a package is the one we know, or it is not used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vllamad.errors import RuntimeProblem
from vllamad.runtimes.packaged import verify_file


def test_a_file_with_the_known_bytes_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"weights")
    verify_file(tmp_path / "f", sha256=hashlib.sha256(b"weights").hexdigest(), source="p==1")


def test_a_file_with_other_bytes_is_refused_with_both_hashes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"changed")
    with pytest.raises(
        RuntimeProblem, match=r"cannot trust f of p==1: its sha256 is d67e2e\w+, not known"
    ):
        verify_file(tmp_path / "f", sha256="known", source="p==1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeProblem, match="cannot find f in p==1"):
        verify_file(tmp_path / "f", sha256="known", source="p==1")
