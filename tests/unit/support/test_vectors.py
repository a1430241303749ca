"""No numbered question is left unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.daemon import ROOT
from tests.support.vectors import CHANGED, VECTORS


@pytest.mark.integration
def test_every_vector_is_shown_by_a_test_against_a_running_gateway() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.vectors"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(VECTORS)} vectors, {len(VECTORS)} shown by" in done.stdout


def test_the_numbers_are_whole_and_what_is_changed_is_among_them() -> None:
    assert list(VECTORS) == list(range(1, 80))
    assert CHANGED.keys() <= VECTORS.keys()
