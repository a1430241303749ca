"""Workers that outlive the daemon, under a service manager that keeps their life lines."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.manager import Manager, folders
from tests.support.daemon import Daemon, fake_config, free_port, is_alive, until
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.shim import descendants

pytestmark = pytest.mark.integration

KEEP = "[worker]\nkeep_workers = true\nstop_timeout = 2\n[server]\ndrain_timeout = 2\n"
SCENARIO = {"children": ["VLLM::EngineCor"], "orphan": True, "shared": True}
ENDS = [signal.SIGTERM, signal.SIGKILL]


@pytest.fixture
def manager(home: Path) -> Generator[Manager]:
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as run:
        one = Manager(Daemon(home, free_port(), Path(run)))
        try:
            yield one
        finally:
            print(one.daemon.text())
            one.daemon.http.close()
            one.close()


def begin(manager: Manager, *, more: str = KEEP, **scenario: Any) -> dict[str, Any]:
    """Start the daemon and load `a`; its worker."""
    configure(manager, more=more, **scenario)
    manager.start()
    loaded = manager.daemon.http.post("/api/generate", json={"model": "a"})
    assert loaded.status_code == 200
    return worker(manager)


def loads(manager: Manager) -> int:
    return len(manager.daemon.logged(LogEvent.WORKER_LOAD, model="a:latest"))


def configure(manager: Manager, *, more: str = KEEP, **scenario: Any) -> None:
    config = fake_config(scenarios={"a": SCENARIO | scenario}, more=more)
    (manager.daemon.home / "vllamad.toml").write_text(config)


def worker(manager: Manager) -> dict[str, Any]:
    (only,) = manager.daemon.workers()
    return only


def family(pid: int) -> set[int]:
    """A worker's leader, its shim, and all that the shim holds."""
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"shim" in Path(f"/proc/{shim}/cmdline").read_bytes()
    return {shim, *(process.pid for process in descendants(shim))}


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if is_alive(pid)}


@pytest.mark.parametrize("end", ENDS)
def test_after_a_restart_and_after_a_crash_the_same_worker_answers(
    manager: Manager, end: signal.Signals
) -> None:
    pids = family(begin(manager)["pid"])
    first = worker(manager)["pid"]
    for _ in range(3):
        manager.restart(end)
        again = worker(manager)
        assert (again["pid"], again["restarts"], again["context_length"]) == (first, 0, 2048)
        assert again["state"] in ("starting", "ready")
        assert manager.daemon.chat("a").json()["message"]["content"]
        assert worker(manager)["state"] == "ready"
    assert living(pids) == pids
    assert loads(manager) == 1


@pytest.mark.parametrize("end", ENDS)
def test_when_the_store_is_emptied_nothing_is_left(manager: Manager, end: signal.Signals) -> None:
    pids = family(begin(manager)["pid"])
    manager.daemon.stop(end)
    assert living(pids) == pids
    assert shared_files(manager)
    manager.empty()
    until(lambda: not living(pids))
    assert shared_files(manager) == []


def shared_files(manager: Manager) -> list[str]:
    """What its workers have in shared memory, where the scripted engine puts its name."""
    return [name for name in os.listdir("/dev/shm") if manager.daemon.run.name in name]


def test_a_crash_cuts_the_stream_in_flight_and_nothing_else(manager: Manager) -> None:
    begin(manager, tokens=100_000, rate=50)
    pid = worker(manager)["pid"]
    got: list[str] = []
    with suppress(httpx.TransportError), manager.daemon.streaming("a") as response:
        for line in response.iter_lines():
            got.append(line)
            if len(got) == 1:
                manager.daemon.stop(signal.SIGKILL)
    assert not any('"done":true' in line for line in got)
    manager.start()
    with manager.daemon.streaming("a") as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["done"] is False
        assert (worker(manager)["pid"], worker(manager)["leases"]) == (pid, 1)


def test_a_restart_lets_streams_finish_first(manager: Manager) -> None:
    begin(manager, tokens=40, rate=40)
    with manager.daemon.streaming("a") as response:
        lines = response.iter_lines()
        next(lines)
        os.kill(manager.daemon.pid, signal.SIGTERM)
        assert json.loads(list(lines)[-1])["done"] is True
    until(manager.daemon.process_ended)
    manager.start()
    assert loads(manager) == 1


@pytest.mark.parametrize("end", ENDS)
def test_one_that_is_still_loading_is_ended(manager: Manager, end: signal.Signals) -> None:
    configure(manager, more=KEEP + '[scheduler]\npreload = ["a"]\n', load=60)
    manager.start()
    until(lambda: [one["pid"] for one in manager.daemon.workers()] not in ([], [None]))
    pids = family(worker(manager)["pid"])
    manager.daemon.stop(end)
    until(lambda: not living(pids))
    assert manager.stored == {}


def test_one_whose_settings_are_others_serves_nobody_new(manager: Manager) -> None:
    pids = family(begin(manager)["pid"])
    configure(manager, text="changed")
    manager.restart()
    assert manager.daemon.chat("a").json()["message"]["content"] == "changed"
    until(lambda: not living(pids))
    assert loads(manager) == 2


def test_one_that_died_meanwhile_is_gone_and_can_be_loaded(manager: Manager) -> None:
    pid = begin(manager)["pid"]
    pids = family(pid)
    manager.daemon.stop(signal.SIGKILL)
    signal_and_wait(pid, pids)
    manager.start()
    assert manager.daemon.workers() == []
    assert folders(manager.daemon.run) == []
    assert manager.daemon.logged(LogEvent.WORKER_NOT_ADOPTED, why='"it has ended since"')
    assert manager.daemon.chat("a").status_code == 200


def signal_and_wait(pid: int, pids: set[int]) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not living(pids))


def test_one_that_dies_under_the_next_daemon_is_noticed_and_started_again(
    manager: Manager,
) -> None:
    pid = begin(manager)["pid"]
    pids = family(pid)
    manager.restart()
    until(lambda: worker(manager)["state"] == "ready")
    os.kill(pid, signal.SIGKILL)
    until(lambda: worker(manager)["state"] == "ready" and worker(manager)["pid"] != pid)
    assert not living(pids)
    assert worker(manager)["restarts"] == 1


def test_an_unload_by_the_next_daemon_leaves_nothing_stored(manager: Manager) -> None:
    pids = family(begin(manager)["pid"])
    manager.restart(signal.SIGKILL)
    manager.daemon.ctl("model", "unload", "a")
    assert not living(pids)
    assert folders(manager.daemon.run) == []
    until(lambda: not manager.stored)
    assert "Application shutdown complete." in log(manager), "it was asked before it was killed"


def test_one_that_is_being_ended_is_not_taken_over(manager: Manager) -> None:
    patient = KEEP.replace("stop_timeout = 2", "stop_timeout = 60")
    pids = family(begin(manager, more=patient, ignore_term=True)["pid"])
    manager.daemon.http.post("/api/generate", json={"model": "a", "keep_alive": 0})
    until(lambda: worker(manager)["state"] == "stopping")
    until(lambda: not manager.stored)
    manager.daemon.stop(signal.SIGKILL)
    until(lambda: not living(pids))
    manager.start()
    assert manager.daemon.workers() == []


def test_how_long_it_was_asked_to_stay_is_not_forgotten(manager: Manager) -> None:
    begin(manager)
    manager.daemon.chat("a", keep_alive=-1)
    manager.restart(signal.SIGKILL)
    until(lambda: worker(manager)["state"] == "ready")
    assert worker(manager)["expires_in"] is None
    manager.daemon.chat("a", keep_alive=1)
    manager.restart()
    until(lambda: manager.daemon.workers() == [])


def test_what_it_writes_goes_on_in_its_log(manager: Manager) -> None:
    begin(manager)
    before = log(manager)
    manager.restart(signal.SIGKILL)
    until(lambda: worker(manager)["state"] == "ready")
    os.kill(worker(manager)["pid"], signal.SIGTERM)
    until(lambda: worker(manager)["restarts"] == 1)
    assert log(manager).startswith(before + "INFO:     Application shutdown complete.\n")


def log(manager: Manager) -> str:
    return (manager.daemon.home / "logs" / "a@latest.log").read_text()


def test_without_the_setting_nothing_is_stored(manager: Manager) -> None:
    pids = family(begin(manager, more="")["pid"])
    assert manager.stored == {}
    manager.daemon.stop()
    assert not living(pids)


def test_when_the_setting_is_taken_back_those_that_were_kept_are_ended(manager: Manager) -> None:
    pids = family(begin(manager)["pid"])
    configure(manager, more="")
    manager.restart()
    assert not living(pids)
    assert manager.daemon.logged(LogEvent.WORKER_NOT_ADOPTED, why='"keep_workers is off"')
    until(lambda: not manager.stored)
    assert manager.daemon.workers() == []


def test_without_a_manager_it_is_said_once_that_workers_are_not_kept(manager: Manager) -> None:
    configure(manager)
    daemon = manager.daemon
    daemon.start({})
    pids = family_of_loaded(manager)
    assert len(daemon.logged(LogEvent.HANDOVER_UNAVAILABLE)) == 1
    daemon.stop()
    assert not living(pids)


def family_of_loaded(manager: Manager) -> set[int]:
    assert manager.daemon.chat("a").status_code == 200
    return family(worker(manager)["pid"])
