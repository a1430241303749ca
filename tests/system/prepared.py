"""Where the trees and environments of the boxes are kept, and skips where there can be none."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import trees


def home() -> Path:
    """Where `make prepare` puts the engine, and where trees and environments are kept."""
    return Path(os.environ.get("VLLAMAD_HOME") or Path.home() / ".cache" / "vllamad-dev")


def cache() -> Path:
    return home() / "system"


def tree(name: str) -> Path:
    """The root of a tree; skips where there can be none, fails in CI."""
    with skipping(f"cannot boot {name}"):
        return trees.have(name, cache())


@contextmanager
def skipping(what: str) -> Generator[None]:
    """Skip with the reason where this machine cannot have what a test needs; in CI, fail."""
    try:
        yield
    except trees.CannotBoot as why:
        if os.environ.get("CI"):
            pytest.fail(f"{what}: {why}")
        pytest.skip(f"{what}: {why}")
