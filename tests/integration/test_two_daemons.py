"""A second vllamad where one lives already, and a start that finds some of its models wanting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, daemon, fake_config, free_port, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration


def test_a_second_daemon_is_refused_and_takes_nothing_from_the_first(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        (worker,) = one.workers()
        sockets = sorted(one.run.rglob("*"))
        second = subprocess.run(
            [sys.executable, "-m", "vllamad"],
            cwd=home,
            env=one.environment() | {"VLLAMAD_SERVER_LISTEN": f"127.0.0.1:{free_port()}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert second.returncode == 1
        assert "another vllamad answers on it" in second.stderr
        assert sorted(one.run.rglob("*")) == sockets
        assert one.chat("a").status_code == 200
        assert one.workers()[0]["pid"] == worker["pid"]


def test_what_a_daemon_that_was_killed_left_is_cleared_away(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        folders = list((one.run / "w").iterdir())
        assert folders
        os.kill(one.pid, 9)
        assert one.process is not None
        one.process.wait()
        one.start({})  # it is not up yet: the log is the same
        until(lambda: not [path for path in folders if path.exists()])


def test_what_is_preloaded_stays_and_what_cannot_be_does_not_hold_up_the_rest(home: Path) -> None:
    more = '[scheduler]\npreload = ["nope", "a", "b"]\n[worker]\nmax_failures = 1'
    scenarios = {"a": {"exit": 1, "log": ["ValueError: no room"]}}
    with daemon(home, config=fake_config(scenarios=scenarios, more=more)) as one:
        until(lambda: {w["model"]: w["state"] for w in one.workers()}.get("b:latest") == "ready")
        failed, ready = sorted(one.workers(), key=lambda worker: worker["model"])
        assert (failed["model"], failed["state"]) == ("a:latest", "failed")
        assert ready["expires_in"] is None
        assert len(one.logged(LogEvent.MODEL_PRELOAD_FAILED)) == 2
