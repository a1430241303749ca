"""What one test leaves is not blamed on another; what a script ignores, its children hear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, ROOT

pytestmark = pytest.mark.integration

LEAVES = """
import gc, subprocess, sys

def test_that_fails():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    held = [child]
    held.append(held)
    assert False

def test_that_is_not_to_blame():
    gc.collect()
"""
HEARS = """
import signal, subprocess, sys

def test_a_child_hears_an_interrupt():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGINT
"""


def run(folder: Path, text: str, *, deaf: bool = False) -> str:
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "tests.conftest"]
    command += ["-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if deaf else None,
    )
    return done.stdout


def test_what_a_failed_test_leaves_is_not_blamed_on_the_next(tmp_path: Path) -> None:
    assert "1 failed, 1 passed" in run(tmp_path, LEAVES)


def test_in_the_background_of_a_script_children_hear_an_interrupt(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, HEARS, deaf=True)
