"""Real vLLM as a worker of the confined service."""

from __future__ import annotations

import os
import time

import pytest

from tests.system import engine, trees
from tests.system.box import Box
from tests.system.prepared import home, tree
from tests.system.service import KEEP_WORKERS_UNIT, KEPT_WORKER_ANSWERS, Service

# The runtime is made for one Python, that of this machine's own system.
pytestmark = [pytest.mark.system, pytest.mark.parametrize("box", [trees.HOST], indirect=True)]


@pytest.fixture
def real(service: Service, box: Box, request: pytest.FixtureRequest) -> Service:
    """A service that runs the real engine; skips where there is none, fails in CI."""
    why = engine.problem(home(), tree(box.tree))
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    engine.use(service, home())
    return service


def capital(service: Service) -> str:
    answer = service.chat("real", text="What is the capital of France?")
    return answer.json()["message"]["content"]


def nothing_is_left(service: Service) -> bool:
    processes = service.box.run("pgrep", "-u", "vllamad", "-a", code=None)
    return (processes, service.box.run("ls", "/dev/shm")) == ("", "")


def test_a_real_model_answers_from_within_the_hardened_unit(real: Service):
    real.start()
    assert "Paris" in capital(real)
    assert [worker["state"] for worker in real.workers()] == ["ready"]
    real.stop()
    assert nothing_is_left(real)


@pytest.mark.assertion(10)
def test_a_real_model_outlives_restart_and_crash(real: Service):
    real.drop_in(KEEP_WORKERS_UNIT, name="keep-workers")
    real.setting("RestartSec=100ms")
    real.start()
    assert "Paris" in capital(real)
    before = real.workers()[0]["pid"]
    real.restart()
    began = time.monotonic()
    assert "Paris" in capital(real)
    print(f"answered {time.monotonic() - began:.1f} s after the restart")
    assert time.monotonic() - began < KEPT_WORKER_ANSWERS
    real.kill()
    real.until_restarted()
    assert "Paris" in capital(real)
    assert real.workers()[0]["pid"] == before
    real.stop()
    assert nothing_is_left(real)
