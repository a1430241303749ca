"""What a whole daemon tells systemd, from its start to its end."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.fakes.manager import Manager, hold_both, managed_daemon
from tests.support.daemon import ROOT, fake_config, is_alive, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration


def words(manager: Manager) -> list[str]:
    """What was told but for what goes on, each message by its first word."""
    told = [message.partition("=")[0] for message in manager.heard]
    return [word for word in told if word not in ("STATUS", "EXTEND_TIMEOUT_USEC", "WATCHDOG")]


def status(manager: Manager, pattern: str) -> list[str]:
    """Every status told so far that is like that."""
    told = [m.removeprefix("STATUS=") for m in manager.heard if m.startswith("STATUS=")]
    return [one for one in told if re.fullmatch(pattern, one)]


def test_ready_is_told_when_it_serves_and_stopping_before_anything_else(home: Path) -> None:
    with managed_daemon(home) as manager:
        manager.start()
        assert manager.daemon.http.get("/api/version").status_code == 200
        assert "vllamad" in manager.daemon.ctl("status")
        manager.daemon.chat("a")
        count = len(manager.heard)
        assert manager.daemon.stop() == 0
        until(lambda: "BARRIER=1" in manager.heard)
        assert words(manager) == ["READY", "STOPPING", "BARRIER"]
        assert "STOPPING=1" in manager.heard[count : count + 3], "a status may cross it"


def test_more_time_is_asked_for_while_starting_and_stopping_only(home: Path) -> None:
    with managed_daemon(home) as manager:
        manager.start()
        ready = manager.heard.index("READY=1")
        assert any(message.startswith("EXTEND") for message in manager.heard[:ready])
        manager.daemon.stop()
        stopping = manager.heard.index("STOPPING=1")
        between = manager.heard[ready:stopping]
        assert not [message for message in between if message.startswith("EXTEND")]
        until(lambda: any(m.startswith("EXTEND") for m in manager.heard[stopping:]))


def test_the_status_says_what_goes_on(home: Path) -> None:
    hold = home / "hold"
    hold.touch()
    scenarios = {"a": {"load": 4, "tokens": 60, "rate": 15, "hold": str(hold)}}
    with managed_daemon(home, fake_config(scenarios=scenarios)) as manager:
        manager.start()
        one = manager.daemon
        until(lambda: status(manager, "serving: 0 models, 0 requests"))
        with one.streaming("a", options={"num_predict": 100}) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert status(manager, r"loading a:latest: .+, \d+ s; serving: 0 models, 0 requests")
            until(lambda: status(manager, "serving: 1 model, 1 request"))
            assert one.process is not None
            one.process.send_signal(signal.SIGTERM)
            until(lambda: status(manager, r"stopping: 1 request left, \d+ s"))
            hold.unlink()
            assert list(lines), "the stream goes on to its end"
        assert one.process.wait(60) == 0


def test_a_reload_is_told_and_so_is_a_fault_in_the_file(home: Path) -> None:
    with managed_daemon(home) as manager:
        manager.start()
        assert manager.daemon.process is not None
        manager.daemon.process.send_signal(signal.SIGHUP)
        until(lambda: words(manager) == ["READY", "RELOADING", "READY"])
        reloading = next(m for m in manager.heard if m.startswith("RELOADING"))
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
        (home / "vllamad.toml").write_text("[server]\ngateways = 0\n")
        manager.daemon.process.send_signal(signal.SIGHUP)
        until(lambda: status(manager, r"serving: .*; the changed configuration .*gateways.*"))
        assert words(manager) == ["READY"] + ["RELOADING", "READY"] * 2


def test_an_address_in_use_is_told_with_its_number_before_the_end(home: Path) -> None:
    with managed_daemon(home) as manager, socket.socket() as other:
        other.bind(("127.0.0.1", manager.daemon.port))
        other.listen()
        with pytest.raises(AssertionError):
            manager.start()
        assert manager.daemon.stop() == 1
        until(lambda: "BARRIER=1" in manager.heard)
        assert f"ERRNO={errno.EADDRINUSE}" in manager.heard
        where = f"127.0.0.1:{manager.daemon.port}"
        assert status(manager, f"cannot listen on {where}: Address already in use")
        assert "READY=1" not in manager.heard


def test_faults_in_the_configuration_are_told_before_the_end(home: Path) -> None:
    with managed_daemon(home, "[server]\ngateways = 0\n") as manager:
        manager.begin()
        until(manager.daemon.process_ended)
        assert manager.daemon.stop() == 78
        until(lambda: status(manager, r".*vllamad\.toml:2: server\.gateways: must be .*"))
        assert words(manager) == ["BARRIER"]


def test_starts_that_are_stopped_at_once_all_end_in_order(home: Path) -> None:
    with managed_daemon(home) as manager:
        hold_both(manager)
        for number in range(5):
            manager.start()
            assert manager.daemon.stop() == 0, number
        assert words(manager) == ["READY", "STOPPING", "BARRIER"] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_it_is_ready_does_not_end_it_as_it_stands(home: Path, number: int) -> None:
    with managed_daemon(home) as manager:
        hold_both(manager)
        manager.begin()
        until(lambda: "STATUS=starting" in manager.heard)
        assert manager.daemon.process is not None
        manager.daemon.process.send_signal(number)
        if number == signal.SIGTERM:
            assert manager.daemon.process.wait(60) == 0
            assert "STOPPING=1" in manager.heard
        else:
            until(lambda: words(manager)[:3] == ["READY", "RELOADING", "READY"])


def test_aborted_it_leaves_every_stack(home: Path) -> None:
    with managed_daemon(home) as manager:
        manager.start()
        manager.daemon.stop(signal.SIGABRT)
        text = manager.daemon.text()
        assert "Fatal Python error: Aborted" in text
        assert "vllamad/__main__.py" in text
        assert "(most recent call first)" in text


def test_the_watchdog_is_fed_and_a_stopped_loop_starves_it(home: Path) -> None:
    with managed_daemon(home) as manager:
        manager.start({"WATCHDOG_USEC": "1500000"})
        until(lambda: manager.heard.count("WATCHDOG=1") >= 3)
        os.kill(manager.daemon.pid, signal.SIGSTOP)
        count = manager.heard.count("WATCHDOG=1")
        with pytest.raises(AssertionError, match="never came true"):
            until(lambda: manager.heard.count("WATCHDOG=1") > count + 1, limit=2)
        os.kill(manager.daemon.pid, signal.SIGCONT)
        until(lambda: manager.heard.count("WATCHDOG=1") > count + 1)


# The law of `core/lifecycle.py`, less what follows STARTING: the first load breaks it.
LAWLESS = """
from vllamad.core import lifecycle
lifecycle.FOLLOWS[lifecycle.State.STARTING] = frozenset()
"""


def test_a_broken_invariant_is_the_watchdogs_and_leaves_no_process(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "law").mkdir()
    (tmp_path / "law" / "sitecustomize.py").write_text(LAWLESS)
    with managed_daemon(home) as manager:
        one = manager.daemon
        manager.start({"PYTHONPATH": f"{tmp_path / 'law'}:{ROOT}"})
        before = [process.pid for process in one.processes()] + one.gateways()
        with suppress(httpx.TransportError):  # nobody is left to answer
            one.chat("a")
        until(lambda: "WATCHDOG=trigger" in manager.heard)
        until(one.process_ended)
        assert one.stop() == 1, "without a manager that aborts it, it ends by itself"
        assert one.logged(LogEvent.DAEMON_BROKEN)
        assert "a worker cannot go from starting to" in one.text()
        assert not [pid for pid in before if is_alive(pid)]
