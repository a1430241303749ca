"""Starts and stops that take their time: systemd is asked for more of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import until
from tests.system.service import Service

pytestmark = pytest.mark.system

PLACE = "/opt/slow"
LIMIT = 2  # seconds that systemd gives
# Python runs these at every start; the daemon knows nothing of them: a store that takes long to
# tidy, and a start that hangs before it has begun.
SLOW_STORE = """
import time
from vllamad.models.store import upload_blobs
remove_old_blobs = upload_blobs.remove_old_blobs
upload_blobs.remove_old_blobs = lambda models: (time.sleep(5), remove_old_blobs(models))
"""
HANGS = "import time; time.sleep(600)\n"


def started_with(service: Service, trick: str) -> None:
    service.write(f"{PLACE}/sitecustomize.py", trick)
    service.setting(f"TimeoutStartSec={LIMIT}", "Restart=no", f"Environment=PYTHONPATH={PLACE}")


@pytest.mark.assertion(3)
def test_a_long_start_outlives_a_short_start_timeout(service: Service):
    started_with(service, SLOW_STORE)
    service.start()
    assert service.show("Result") == "success"
    assert service.ask("GET", "/api/version").status == 200


@pytest.mark.assertion(3)
def test_a_start_that_hangs_is_given_up(service: Service):
    started_with(service, HANGS)
    service.box.systemctl("start", service.name, code=1)
    assert service.show("Result") == "timeout"


@pytest.mark.assertion(3)
def test_a_long_drain_outlives_a_short_stop_timeout(service: Service):
    service.configure(scenarios={"a": {"tokens": 60, "rate": 10.0}})  # an answer takes 6 s
    service.setting("TimeoutStopSec=2")
    service.start()
    service.ctl("model", "load", "a")
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(service.chat)
        until(lambda: any(worker["leases"] for worker in service.workers()))
        service.stop()
        assert answer.result().json()["done"] is True
    assert service.show("Result") == "success"
