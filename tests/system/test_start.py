"""Starting, stopping and restarting: what systemd and its users may count on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import until
from tests.system.service import SOCKETS, Service

pytestmark = pytest.mark.system

PAIRS = 10


LISTEN = "0A"  # TCP_LISTEN: connections that have just ended stand in the table as well


def listening(service: Service) -> list[str]:
    """The inodes of the listening sockets: the same ones, or new ones."""
    table = service.box.path("/proc/1/net/tcp").read_text().splitlines()
    rows = [line.split() for line in table]
    port = f":{service.port:04X}"
    return [row[9] for row in rows if row[1].endswith(port) and row[3] == LISTEN]


@pytest.mark.assertion(1)
def test_start_returns_when_the_api_and_the_control_socket_answer(service: Service):
    service.start()
    assert service.ask("GET", "/api/version").status == 200
    assert service.ctl("ps").startswith("NAME")
    assert service.show("SubState") == "running"


@pytest.mark.assertion(1)
def test_the_first_connection_starts_the_daemon(service: Service):
    service.box.systemctl("start", *SOCKETS)
    assert service.show("ActiveState") == "inactive"
    assert service.chat().json()["message"]["content"] == "The capital of France is Paris."
    assert service.show("ActiveState") == "active"


@pytest.mark.assertion(1)
def test_the_status_is_ascii_and_says_what_is_going_on(service: Service):
    service.configure(scenarios={"a": {"load": 5.0}})
    service.start()
    with ThreadPoolExecutor(1) as other:
        other.submit(service.ctl, "model", "load", "a")
        until(lambda: service.show("StatusText").startswith("loading a:latest: "))
        assert service.show("StatusText").isascii()
        until(lambda: service.show("StatusText") == "serving: 1 model, 0 requests")


@pytest.mark.assertion(1)
def test_a_restart_keeps_the_sockets(service: Service):
    service.start()
    before = listening(service)
    service.restart()
    assert len(before) == 1
    assert listening(service) == before


@pytest.mark.assertion(1)
@pytest.mark.parametrize("order", [SOCKETS, SOCKETS[::-1]], ids=["http-first", "control-first"])
def test_sockets_are_told_by_their_names_not_their_order(service: Service, order: tuple[str, ...]):
    service.setting("Sockets=", f"Sockets={' '.join(order)}")
    service.start()
    assert service.ask("GET", "/api/version").status == 200
    assert service.ctl("ps")


@pytest.mark.assertion(4)
def test_a_stop_right_after_ready_is_a_clean_one(service: Service):
    for _ in range(PAIRS):
        service.start()
        service.stop()
        assert service.show("Result") == "success"
        assert service.show("ExecMainStatus") == "0"
    journal = service.journal()
    assert journal.count("stopped\n") >= PAIRS
