"""Each report of the field is shown by a test."""

from __future__ import annotations

import subprocess
import sys

from tests.support.cases import CASES
from tests.support.daemon import ROOT


def test_every_case_is_shown_by_a_test() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.cases"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CASES)} cases, {len(CASES)} shown" in done.stdout
