"""A scripted daemon on a real control socket, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.control_daemon import ControlDaemon, serving_control
from tests.support.ctl_runs import CtlResult, RunCtl
from vllamactl.__main__ import main


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ControlDaemon]:
    """A daemon that the command line finds by itself."""
    made = ControlDaemon(tmp_path / "c.sock")
    monkeypatch.setenv("VLLAMAD_CONTROL", str(made.path))
    with serving_control(made):
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> RunCtl:
    """Call `vllamactl` with these arguments."""

    def call(*argv: str) -> CtlResult:
        code = main(argv)
        captured = capsys.readouterr()
        return CtlResult(code, captured.out, captured.err)

    return call
