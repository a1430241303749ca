"""Starting, stopping, restarting: what systemd and its users may count on."""

from __future__ import annotations

import pytest

from tests.system.service import Service

pytestmark = pytest.mark.system


@pytest.mark.assertion(1)
def test_start_returns_when_the_api_and_the_control_socket_answer(service: Service):
    service.start()
    assert service.ask("GET", "/api/version").status == 200
    assert service.ctl("ps") is not None
    assert service.show("SubState") == "running"


@pytest.mark.assertion(1)
def test_the_first_request_loads_a_model(service: Service):
    service.start()
    assert service.chat().json()["message"]["content"] == "The capital of France is Paris."
