"""`vllamactl run` and `create` with the real engine: a person, a terminal, a model that answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL
from tests.support.terminal import at_terminal

pytestmark = pytest.mark.e2e


def test_a_conversation_at_the_terminal(real: Daemon) -> None:
    with at_terminal(real, "run", MODEL) as terminal:
        terminal.child.timeout = 300
        terminal.reads(">>>")
        for typed in ("/set parameter seed 1", "/set parameter temperature 0"):
            terminal.type(typed)
            terminal.reads("Set parameter", ">>>")
        terminal.type("/set verbose")
        terminal.reads("Set 'verbose' mode.", ">>>")
        terminal.type("My name is Ada. What is the capital of France? Answer in one sentence.")
        assert "Paris" in terminal.reads("eval rate:")
        terminal.reads(">>>")
        terminal.type("/set parameter num_predict 2000")
        terminal.reads(">>>")
        terminal.type("Write a very long story, of many chapters, about a ship.")
        terminal.reads("ship", "ship")  # of the question, and of the answer
        terminal.press("c")
        terminal.reads(">>>")
        terminal.type("/save story")
        terminal.reads("Created new model 'story'", ">>>")
        terminal.press("d")
        assert terminal.ends() == 0
    try:
        saved = real.http.post("/api/show", json={"model": "story"}).json()["messages"]
        assert saved[0]["content"].startswith("My name is Ada.")
    finally:
        real.ctl("rm", "story")


def test_a_modelfile_changes_what_it_says(real: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM {MODEL}\nPARAMETER num_predict 3\n")
    real.ctl("create", "brief", "-f", str(tmp_path / "Modelfile"))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vllamactl", "run", "brief", "--verbose", "count to ten"],
            input="Please ",
            env=real.environment() | {"VLLAMAD_CONTROL": str(real.run / "control.sock")},
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        real.ctl("rm", "brief")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "eval count:           3 token(s)" in done.stderr
