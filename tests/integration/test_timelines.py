"""How long models stay: keep-alives, unloads, who makes way for whom, and who is turned away."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until

pytestmark = pytest.mark.integration

TEXT = "The capital of France is Paris."
SOON = timedelta(seconds=20)  # what a busy machine may take


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `quick`, and `slow`, whose streams end once `home / "hold"` is gone."""
    home = fake_home(tmp_path_factory.mktemp("timelines"), ["quick", "slow"])
    slow = {"rate": 20.0, "tokens": 60, "hold": str(home / "hold")}
    config = fake_config(scenarios={"slow": slow})
    with daemon(home, config=config) as running:
        yield running


@pytest.fixture
def pool() -> Generator[ThreadPoolExecutor]:
    """Clients that ask while the test goes on."""
    with ThreadPoolExecutor() as clients:
        yield clients


def loaded(one: Daemon) -> dict[str, datetime]:
    """What is loaded, and until when."""
    models = one.http.get("/api/ps").json()["models"]
    return {model["name"].removesuffix(":latest"): until_when(model) for model in models}


def until_when(model: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(model["expires_at"])


def left(one: Daemon, model: str) -> timedelta:
    return loaded(one)[model] - datetime.now(UTC)


def unload(one: Daemon, model: str) -> httpx.Response:
    return one.http.post("/api/generate", json={"model": model, "keep_alive": 0})


def queued(one: Daemon) -> int:
    return json.loads(one.ctl("status", "--json"))["queued"]


def gone(one: Daemon, model: str) -> bool:
    return model not in loaded(one)


@pytest.mark.vector(71)
def test_71_a_model_stays_five_minutes_from_the_end_of_an_answer(one: Daemon) -> None:
    unload(one, "quick")
    until(lambda: gone(one, "quick"))
    one.http.post("/api/generate", json={"model": "quick", "prompt": "x", "stream": False})
    assert timedelta(minutes=5) - SOON < left(one, "quick") <= timedelta(minutes=5)


@pytest.mark.vector(71)
def test_71_and_is_gone_when_its_time_is_over(tmp_path: Path) -> None:
    with daemon(
        fake_home(tmp_path, ["a"]), config=fake_config(), environ={"OLLAMA_KEEP_ALIVE": "1s"}
    ) as one:
        assert one.chat("a").status_code == 200
        assert until(lambda: gone(one, "a")) < SOON.seconds


@pytest.mark.vector(72)
def test_72_a_keep_alive_sticks_and_counts_from_the_last_answer(one: Daemon) -> None:
    one.chat("quick", keep_alive="100s")
    first = loaded(one)["quick"]
    one.chat("quick")
    assert first < loaded(one)["quick"] <= datetime.now(UTC) + timedelta(seconds=100)


@pytest.mark.vector(73)
def test_73_nought_with_a_prompt_is_a_whole_answer_and_the_end(one: Daemon) -> None:
    body = {"model": "quick", "prompt": "x", "keep_alive": 0, "stream": False}
    assert one.http.post("/api/generate", json=body).json()["response"] == TEXT
    until(lambda: gone(one, "quick"))


@pytest.mark.vector(74)
def test_74_an_unload_lets_a_running_stream_end(one: Daemon) -> None:
    (one.home / "hold").touch()
    with one.streaming("slow", keep_alive="5m") as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["done"] is False
        assert left(one, "slow") > timedelta(minutes=5) - SOON
        unloaded = unload(one, "slow")
        assert unloaded.json()["done_reason"] == "unload"
        assert left(one, "slow") <= timedelta(), "on its way out"
        (one.home / "hold").unlink()
        *_, last = map(json.loads, lines)
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 61)
    until(lambda: gone(one, "slow"))


@pytest.mark.vector(75)
def test_75_an_unload_of_what_is_not_loaded(one: Daemon) -> None:
    unload(one, "quick")
    until(lambda: gone(one, "quick"))
    again = unload(one, "quick")
    assert (again.status_code, again.json()["done_reason"]) == (200, "unload")
    unknown = unload(one, "nope")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "model 'nope' not found"})


@pytest.mark.vector(76)
def test_76_with_room_for_one_the_idle_one_goes_and_the_busy_one_is_waited_for(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    home = fake_home(tmp_path, ["a", "busy"])
    hold = tmp_path / "hold"
    hold.touch()
    config = fake_config(scenarios={"busy": {"rate": 20.0, "tokens": 40, "hold": str(hold)}})
    with daemon(home, config=config, environ={"OLLAMA_MAX_LOADED_MODELS": "1"}) as one:
        one.chat("a")
        assert set(loaded(one)) == {"a"}
        with one.streaming("busy") as response:
            lines = response.iter_lines()
            next(lines)
            assert set(loaded(one)) == {"busy"}
            waiting = pool.submit(one.chat, "a")
            until(lambda: queued(one) == 1)
            hold.unlink()
            *_, last = map(json.loads, lines)
        assert last["eval_count"] == 41, "whole, though somebody waited"
        assert waiting.result(60).status_code == 200
        assert set(loaded(one)) == {"a"}


@pytest.mark.vector(77)
@pytest.mark.parametrize("last", ["forever", "minutes"])
def test_77_who_stays_for_ever_is_not_the_one_to_go(tmp_path: Path, last: str) -> None:
    home = fake_home(tmp_path, ["forever", "minutes", "new"])
    environ = {"OLLAMA_MAX_LOADED_MODELS": "2"}
    with daemon(home, config=fake_config(), environ=environ) as one:
        one.chat("forever", keep_alive=-1)
        one.chat("minutes", keep_alive="5m")
        one.chat(last)
        one.chat("new")
        assert set(loaded(one)) == {"forever", "new"}


@pytest.mark.vector(78)
def test_78_the_servers_keep_alive_may_be_nought(tmp_path: Path) -> None:
    home = fake_home(tmp_path, ["a", "b"])
    with daemon(home, config=fake_config(), environ={"OLLAMA_KEEP_ALIVE": "0"}) as one:
        one.chat("a")
        one.chat("b", keep_alive="5m")
        until(lambda: gone(one, "a"))
        assert timedelta(minutes=5) - SOON < left(one, "b")


@pytest.mark.vector(78)
def test_78_the_servers_keep_alive_may_be_for_ever(tmp_path: Path) -> None:
    home = fake_home(tmp_path, ["a"])
    with daemon(home, config=fake_config(), environ={"OLLAMA_KEEP_ALIVE": "-1"}) as one:
        one.chat("a")
        assert loaded(one)["a"].year > 2300


@pytest.mark.vector(32, 79)
def test_79_a_full_queue_refuses_at_once_and_serves_what_is_loaded(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    home = fake_home(tmp_path, ["here", "loads", "waits", "late"])
    config = fake_config(scenarios={"loads": {"load": 4.0}})
    with daemon(home, config=config, environ={"OLLAMA_MAX_QUEUE": "1"}) as one:
        one.chat("here")
        answers: list[Future[httpx.Response]] = [pool.submit(one.chat, "loads")]
        until(lambda: "loads:latest" in {worker["model"] for worker in one.workers()})
        answers.append(pool.submit(one.chat, "waits"))
        until(lambda: queued(one) == 2)
        refused = one.chat("late")
        assert (refused.status_code, refused.json()) == (
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
        )
        assert one.chat("here").status_code == 200
        assert not answers[0].done(), "all of that while it still loads"
        assert [answer.result(60).status_code for answer in answers] == [200, 200]
