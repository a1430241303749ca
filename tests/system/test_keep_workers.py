"""Workers that outlive their daemon, with `drop-ins/keep-workers.conf`; a stop still ends them."""

from __future__ import annotations

import time

import pytest

from tests.system import trees
from tests.system.clients import clients
from tests.system.service import KEEP_WORKERS_UNIT, KEPT_WORKER_ANSWERS, UNITS, Service

pytestmark = pytest.mark.system


def keep(service: Service) -> None:
    service.drop_in(KEEP_WORKERS_UNIT, name="keep-workers")
    service.setting("RestartSec=100ms")


@pytest.fixture
def keeping(service: Service) -> Service:
    """A daemon that keeps its workers, with one of a few processes loaded."""
    service.configure(scenarios={"a": {"children": ["VLLM::EngineCor"], "orphan": True}})
    keep(service)
    service.start()
    assert service.chat().status == 200
    return service


def worker_pid(service: Service) -> int:
    (worker,) = service.workers()
    return worker["pid"]


def left(service: Service) -> str:
    return service.box.run("pgrep", "-u", "vllamad", "-a", code=None)


@pytest.mark.assertion(10)
def test_a_restart_keeps_the_worker_and_it_answers_at_once(keeping: Service):
    before = worker_pid(keeping)
    keeping.restart()
    began = time.monotonic()
    assert keeping.chat().status == 200
    assert time.monotonic() - began < KEPT_WORKER_ANSWERS
    assert worker_pid(keeping) == before


@pytest.mark.assertion(10)
def test_a_crash_keeps_the_worker(keeping: Service):
    before = worker_pid(keeping)
    keeping.kill()
    keeping.until_restarted()
    assert keeping.chat().status == 200
    assert worker_pid(keeping) == before


@pytest.mark.assertion(10)
@pytest.mark.parametrize("box", [trees.NEWER], indirect=True)
def test_so_it_does_where_systemd_places_the_supervisor(keeping: Service):
    keeping.drop_in((UNITS / "drop-ins" / "systemd254.conf").read_text(), name="systemd254")
    keeping.restart()
    assert keeping.show("RestartSteps") == "6"
    before = worker_pid(keeping)
    keeping.restart()
    assert keeping.chat().status == 200
    assert worker_pid(keeping) == before
    assert keeping.show("DelegateSubgroup") == "supervisor"


@pytest.mark.assertion(10)
def test_a_stop_leaves_nothing(keeping: Service):
    keeping.restart()  # what was kept is ended as well
    keeping.stop()
    assert left(keeping) == ""
    assert not keeping.box.path(f"/sys/fs/cgroup/vllamad.slice/{keeping.name}").exists()
    assert keeping.box.run("ls", "/dev/shm") == ""


@pytest.mark.assertion(10)
def test_a_worker_whose_settings_changed_is_replaced(keeping: Service):
    before = worker_pid(keeping)
    keeping.configure("[model.a]\ncontext_length = 1024")
    keeping.restart()
    assert keeping.chat().status == 200
    assert worker_pid(keeping) != before
    assert len(keeping.workers()) == 1


@pytest.mark.assertion(10)
def test_chats_go_on_over_restarts_without_one_lost(keeping: Service):
    before = worker_pid(keeping)
    with clients(keeping.box, 20, streams=10) as seen:
        for _ in range(3):
            keeping.restart()
            assert keeping.chat().status == 200
    assert seen.failed == {}
    assert worker_pid(keeping) == before
