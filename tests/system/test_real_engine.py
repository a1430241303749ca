"""Real vLLM as a worker of the confined service."""

from __future__ import annotations

import os

import pytest

from tests.system import engine, trees
from tests.system.box import Box
from tests.system.conftest import home, tree
from tests.system.service import Service

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


def test_a_real_model_answers_from_within_the_hardened_unit(real: Service):
    real.start()
    assert (
        "Paris"
        in real.chat("real", text="What is the capital of France?").json()["message"]["content"]
    )
    assert [worker["state"] for worker in real.workers()] == ["ready"]
    real.stop()
    assert real.box.run("pgrep", "-u", "vllamad", "-a", code=None) == ""
    assert real.box.run("ls", "/dev/shm") == ""
