"""The benchmarks of the library work, and what they promise to tell is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.daemon import PATIENCE, ROOT

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tests.bench.pulls", "speed of vllamad: x "),
        ("tests.bench.library", "/api/tags"),
    ],
)
def test_a_quick_run_tells_what_the_whole_would(name: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", name, "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
