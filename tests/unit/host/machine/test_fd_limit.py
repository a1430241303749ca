"""The limit on open files, in a process of its own: what is lowered cannot be raised again."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT

ASK = "from vllamad.host.machine.fd_limit import *; raise_limit(); print(limit())"


def limit_of(soft: int, hard: int) -> int:
    """What a process with these limits makes of them."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); {ASK}"
    environ = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, stdout=-1)
    return int(done.stdout)


def test_the_limit_is_raised_as_far_as_it_goes() -> None:
    assert limit_of(100, 300) == 300


def test_a_limit_that_is_high_enough_stays() -> None:
    assert limit_of(300, 300) == 300
