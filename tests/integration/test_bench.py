"""The benchmarks of the library work, and what they promise to tell is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.cpu import LANDED, TOGETHER, Found, table, verdict
from tests.support.daemon import PATIENCE, ROOT

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


def test_the_verdict_on_a_cpu_is_about_that_kind_of_cpu() -> None:
    before = Found({1: [16.0], 5: [27.0], 20: [43.0]}, first=[0.48], memory=[1 << 30])
    after = Found({1: [17.0], 5: [67.0], 20: [120.0]}, first=[0.139], memory=[2 << 30])
    found = {LANDED: before, TOGETHER: after}
    assert [*verdict(found, has_bfloat16=False)] == [
        "without bfloat16: 20 at once, x 3 or more: NOT MET, x 2.79",
        "without bfloat16: 5 at once, x 2 or more: met, x 2.48",
        "without bfloat16: first token, x 0.5 or less: met, x 0.29",
    ]
    assert [*verdict(found, has_bfloat16=True)] == [
        "with bfloat16: no slower anywhere: met, at worst x 1.06"
    ]
    (_, _, ours) = table(found, (1, 5, 20))
    assert "120.0 (x 2.79)" in ours
    assert "2048 (x 2.00)" in ours
