"""The shapes of answers that go well, and of those that do not."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from tests.fakes.family_scripts import RECORDED
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.error_events import RATE_LIMITED

pytestmark = pytest.mark.integration

JSON = "application/json; charset=utf-8"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    folder = tmp_path_factory.mktemp("said")
    scenarios: dict[str, dict[str, Any]] = {
        "test": {},
        "logprobs": {"replay": str(RECORDED / "chat-logprobs.sse")},
        "breaks": {"error_after": 1},
    }
    for status in (429, 503):
        said = folder / str(status)
        said.write_text(f"data: {RATE_LIMITED % status}\n\ndata: [DONE]\n\n")
        scenarios[f"s{status}"] = {"replay": str(said)}
    home = fake_home(tmp_path_factory.mktemp("shapes"), list(scenarios))
    with daemon(home, config=fake_config(scenarios=scenarios)) as running:
        yield running


def ask(one: Daemon, model: str, **more: Any) -> Any:
    return one.http.post("/api/chat", json={"model": model, "messages": HI, **more})


@pytest.mark.vector(43)
def test_43_an_answer_in_one_piece_is_the_last_line_with_all_the_text(one: Daemon) -> None:
    whole = ask(one, "test", stream=False)
    assert whole.headers["content-type"] == JSON
    assert not whole.text.endswith("\n")
    *_, last = (json.loads(line) for line in ask(one, "test").text.splitlines())
    assert list(whole.json()) == list(last)
    assert whole.json()["message"]["content"] == "The capital of France is Paris."


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.vector(47)
def test_47_log_probabilities_stand_after_done(one: Daemon, path: str, stream: bool) -> None:
    spoken = {"messages": HI} if path == "/api/chat" else {"prompt": "hi"}
    body = {"model": "logprobs", "stream": stream, "logprobs": True, "top_logprobs": 2, **spoken}
    lines = [json.loads(line) for line in one.http.post(path, json=body).text.splitlines()]
    told = [line for line in lines if "logprobs" in line]
    tokens = [entry for line in told for entry in line["logprobs"]]
    assert [entry["token"] for entry in tokens] == ["The", " capital", " of"]
    first = tokens[0]
    assert list(first) == ["token", "logprob", "bytes", "top_logprobs"]
    assert first["bytes"] == [84, 104, 101]
    assert [entry["token"] for entry in first["top_logprobs"]] == ["The", "L"]
    if stream:
        order = list(told[0])
        assert order[order.index("done") + 1 :] == ["logprobs"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.vector(48)
def test_48_what_the_engine_refuses_keeps_its_status_and_words(
    one: Daemon, status: int, stream: bool
) -> None:
    answer = ask(one, f"s{status}", stream=stream)
    assert (answer.status_code, answer.json()) == (status, {"error": "rate limit exceeded"})
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.vector(49)
def test_49_what_breaks_after_a_line_ends_with_an_error_line(one: Daemon) -> None:
    answer = ask(one, "breaks")
    assert answer.status_code == 200
    *before, last = (json.loads(line) for line in answer.text.splitlines())
    assert [line["done"] for line in before] == [False]
    assert list(last) == ["error"]
    assert answer.text.endswith("\n")
    whole = ask(one, "breaks", stream=False)
    assert (whole.status_code, list(whole.json())) == (500, ["error"])
