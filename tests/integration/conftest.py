"""What the tests with real processes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import fake_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the scripted engine and the models `a` and `b`."""
    return fake_home(tmp_path)
