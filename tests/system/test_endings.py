"""What is left of workers: nothing."""

from __future__ import annotations

import pytest

from tests.system.service import Service

pytestmark = pytest.mark.system


def worker_environments(service: Service) -> list[str]:
    """What each process of a worker was started with."""
    pids = service.box.run("pgrep", "-u", "vllamad", "-f", "launch_vllm").split()
    return [service.box.path(f"/proc/{pid}/environ").read_text() for pid in pids]


def left(service: Service) -> str:
    """What processes of the service's user there are."""
    return service.box.run("pgrep", "-u", "vllamad", "-a", code=None)


@pytest.mark.assertion(9)
def test_nothing_of_a_worker_with_children_is_left_after_a_stop(service: Service):
    service.configure(scenarios={"a": {"children": ["VLLM::EngineCor"], "orphan": True}})
    service.start()
    service.ctl("model", "load", "a")
    assert "VLLM::Stray" in service.box.run("ps", "-e", "-o", "comm")
    service.stop()
    assert left(service) == ""
    assert not service.box.path(f"/sys/fs/cgroup/vllamad.slice/{service.name}").exists()


@pytest.mark.assertion(9)
def test_a_worker_that_ignores_term_is_killed_in_time(service: Service):
    service.configure("[worker]\nstop_timeout = 1.0", scenarios={"a": {"ignore_term": True}})
    service.start()
    service.ctl("model", "load", "a")
    service.stop()
    assert service.show("Result") == "success"  # our own deadline, not systemd's
    assert left(service) == ""


@pytest.mark.assertion(9)
def test_a_daemon_that_is_killed_takes_its_workers_along(service: Service):
    service.configure(scenarios={"a": {"children": ["VLLM::EngineCor"], "orphan": True}})
    service.setting("RestartSec=100ms")
    service.start()
    service.ctl("model", "load", "a")
    service.kill()
    service.until_restarted()
    assert "VLLM::" not in service.box.run("ps", "-e", "-o", "comm")


@pytest.mark.assertion(9)
def test_a_worker_could_not_speak_for_the_daemon(service: Service):
    service.start()
    service.ctl("model", "load", "a")
    names = {line.partition("=")[0] for text in worker_environments(service)
             for line in text.split("\0")}  # fmt: skip
    assert "VLLM_CACHE_ROOT" in names or "HOME" in names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID",
                        "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"}  # fmt: skip
