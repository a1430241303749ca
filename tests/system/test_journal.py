"""What the journal has: events with their fields, the engine's lines with their model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.log_lines import event_lines
from tests.system.service import Service
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.system


def entries(service: Service, *matches: str) -> list[dict[str, Any]]:
    """What the journal has of this boot, oldest first."""
    lines = service.box.journal("-o", "json", "-b", *matches).splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def used(service: Service) -> Service:
    """A service whose model `a` was loaded and has answered."""
    service.start()
    assert service.chat().status == 200
    return service


def test_the_life_of_a_worker_is_found_by_its_model_and_its_state(used: Service):
    *_, ready = entries(used, "MODEL=a:latest", "EVENT=worker.ready")
    assert ready["MESSAGE"].startswith("worker ready event=worker.ready model=a:latest state=ready")
    assert (ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"]) == ("6", "vllamad")
    assert ready["_SYSTEMD_UNIT"] == "vllamad.service"
    assert ready["CODE_FILE"].endswith("supervisor/workers/worker.py")
    assert int(ready["WORKER_PID"]) in used.processes()


def test_a_failure_is_a_warning_with_its_reason(service: Service):
    service.configure(scenarios={"a": {"exit": 1}})
    service.start()
    assert service.chat().status == 500
    *_, stopping = entries(service, "MODEL=a:latest", "STATE=stopping")
    assert stopping["PRIORITY"] == "4"
    assert stopping["REASON"]


def test_a_request_is_found_by_its_number_though_a_gateway_answered_it(used: Service):
    answered = entries(used, "LOGGER=vllamad.gateway.context")
    (chat,) = [one for one in answered if one["PATH"] == "/api/chat"][-1:]
    assert chat["MODEL"] == "a:latest"
    assert chat["STATUS"] == "200"
    assert entries(used, f"REQUEST_ID={chat['REQUEST_ID']}") == [chat]


def test_what_the_engine_wrote_carries_its_model(used: Service):
    lines = entries(used, "SYSLOG_IDENTIFIER=vllm", "MODEL=a:latest")
    assert lines
    assert {line["PRIORITY"] for line in lines} <= {"3", "4", "6"}
    assert all(line["WORKER_PID"].isdigit() for line in lines if "WORKER_PID" in line)


def test_vllamactl_reads_the_journal_as_well_as_the_file(used: Service):
    from_file = used.ctl("logs", "-n", "1000", "a")
    from_journal = used.ctl("logs", "-n", "1000", "--journal", "a")
    assert event_lines(used.ctl("logs", "-n", "1000"), LogEvent.WORKER_READY)
    assert event_lines(from_journal, LogEvent.WORKER_READY)
    (line,) = from_file.splitlines()[:1]
    assert line in from_journal
    asked = used.ctl("--json", "logs", "--journal", "-n", "5", "a").splitlines()
    assert {json.loads(line)["MODEL"] for line in asked} == {"a:latest"}
