"""Restarts and crashes while fifty clients ask without a pause."""

from __future__ import annotations

import pytest

from tests.support.daemon import until
from tests.system.clients import clients
from tests.system.service import Service

pytestmark = pytest.mark.system

CLIENTS = 50
RESTARTS = 5
CRASHES = 10


@pytest.mark.assertion(5)
def test_restarts_refuse_and_reset_nobody(service: Service):
    service.start()
    with clients(service.box, CLIENTS, streams=5) as seen:
        for _ in range(RESTARTS):
            assert service.chat().status == 200  # so the streams are under way
            service.restart()
    assert seen.failed == {}
    assert seen.answered > CLIENTS * RESTARTS


@pytest.mark.assertion(5)
def test_a_daemon_that_is_killed_loses_the_requests_in_flight_only(service: Service):
    service.setting("RestartSec=100ms")
    service.start()
    with clients(service.box, CLIENTS) as seen:
        service.kill()
        service.until_restarted()
    # Not one was refused, and each client lost one at most.
    assert set(seen.failed) <= {"reset", "closed", "cut"}
    assert sum(seen.failed.values()) <= CLIENTS
    assert seen.answered > CLIENTS


@pytest.mark.assertion(5)
def test_after_ten_crashes_in_a_row_it_is_still_there(service: Service):
    service.setting("RestartSec=100ms")
    service.start()
    for times in range(CRASHES):
        service.kill()
        until(lambda times=times: int(service.show("NRestarts")) > times)
    assert service.box.show("vllamad-http.socket", "ActiveState") == "active"
    assert service.ask("GET", "/api/version").status == 200
