"""A context that the cache cuts, on the real engine: it loads, and is as long as is said."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.wide_llama import LONGEST, write_wide_llama
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.e2e

# 2 GiB hold 65536 tokens of 32 KiB, 1 GiB half of them: one block less is admitted.
PLANNED, NAMED = 64512, 31744
# A variable of vLLM's takes the place of the bytes we give it: the plan is too long by half.
TOO_LONG = '[model.long.env]\nVLLM_CPU_KVCACHE_SPACE = "1"'


@pytest.fixture(scope="module")
def own(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with one little model under two names."""
    home = tmp_path_factory.mktemp("cut")
    (home / "state").mkdir()
    (home / "state" / "runtimes").symlink_to(prepared / "state" / "runtimes")
    path = json.dumps(str(write_wide_llama(home / "wide")))
    config = f"""
[engine]
cpu_kv_cache = "2GiB"
args = {{ dtype = "bfloat16" }}
[scheduler]
max_loaded_models = 1
[model.cut]
path = {path}
[model.long]
path = {path}
{TOO_LONG}
"""
    with daemon(home, config=config) as one:
        one.http.timeout = 300.0
        yield one


def loaded(one: Daemon, model: str) -> int:
    """The context length of `model` once it has answered a request."""
    asked = {"model": model, "prompt": "hi", "stream": False, "options": {"num_predict": 4}}
    told = one.http.post("/api/generate", json=asked)
    assert told.status_code == 200, told.text
    assert told.json()["eval_count"] > 0
    models = one.http.get("/api/ps").json()["models"]
    return next(shown["context_length"] for shown in models if shown["model"] == f"{model}:latest")


def log_of(one: Daemon, model: str) -> str:
    return "".join(path.read_text() for path in (one.home / "logs").glob(f"{model}@*.log"))


def test_a_cut_context_is_admitted_at_once(own: Daemon) -> None:
    assert loaded(own, "cut") == PLANNED < LONGEST
    assert "estimated maximum model length" not in log_of(own, "cut")


def test_a_plan_that_is_too_long_goes_on_with_the_length_the_engine_names(own: Daemon) -> None:
    assert loaded(own, "long") == NAMED
    assert log_of(own, "long").count("the estimated maximum model length is 32640") >= 1
    assert own.logged(LogEvent.WORKER_CONTEXT_SHORTENED)
    kept = json.loads((own.home / "cache" / "context_lengths.json").read_text())
    assert list(kept.values()) == [NAMED]
