"""An engine that refuses the planned context: the shorter one it names is used, and remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from tests.support.managed_daemon import worker

pytestmark = pytest.mark.integration

# The scripted engine admits less than the operator asked for, as a real one may on a busy GPU.
ADMITS, WANTED, GIVEN = 1000, 2048, 896


def config(admits: int = ADMITS) -> str:
    scenario = {"admits": admits}
    return fake_config(scenarios={"a": scenario}).replace(
        '[model."a".env]', f'[model."a"]\ncontext_length = {WANTED}\n[model."a".env]'
    )


def starts(one: Daemon) -> list[str]:
    """The length of each start of the engine, as its log says."""
    text = "".join(path.read_text() for path in (one.home / "logs").glob("a@*.log"))
    return [line for line in text.splitlines() if "To serve at least one request" in line]


def ask(one: Daemon) -> None:
    told = one.http.post("/api/generate", json={"model": "a", "prompt": "hi", "stream": False})
    assert told.status_code == 200, told.text


def test_the_length_the_engine_names_is_used_at_once_and_shown(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for home in (first, second):
        home.mkdir()
    with daemon(fake_home(first, ["a"]), config=config()) as one:
        ask(one)
        assert worker(one, "a:latest")["context_length"] == GIVEN
        (shown,) = one.http.get("/api/ps").json()["models"]
        assert shown["context_length"] == GIVEN
        assert len(starts(one)) == 1
        # The next load begins with it.
        one.ctl("stop", "a")
        until(lambda: not one.workers())
        ask(one)
        assert len(starts(one)) == 1
    kept = first / "cache" / "context_lengths.json"
    assert list(json.loads(kept.read_text()).values()) == [GIVEN]
    shutil.copytree(first / "cache", second / "cache", dirs_exist_ok=True)
    with daemon(fake_home(second, ["a"]), config=config()) as one:
        ask(one)
        assert not starts(one), "a later daemon begins with it too"
        assert worker(one, "a:latest")["context_length"] == GIVEN


def test_a_request_longer_than_it_is_cut_to_it(tmp_path: Path) -> None:
    """Grants carry the true length: what is cut is cut to what the engine has."""
    with daemon(fake_home(tmp_path, ["a"]), config=config()) as one:
        turns = [
            {"role": role, "content": "word " * 100}
            for _ in range(10)
            for role in ("user", "assistant")
        ]
        messages = [*turns, {"role": "user", "content": "hi"}]
        told = one.http.post(
            "/api/chat", json={"model": "a", "messages": messages, "stream": False}
        )
        assert told.status_code == 200, told.text
        assert 0 < told.json()["prompt_eval_count"] <= GIVEN


def test_an_engine_that_admits_nothing_is_given_up_with_its_reason(tmp_path: Path) -> None:
    with daemon(fake_home(tmp_path, ["a"]), config=config(admits=100)) as one:
        told = one.http.post("/api/generate", json={"model": "a", "prompt": "hi"})
        assert told.status_code == 500
        assert "To serve at least one request" in told.text
