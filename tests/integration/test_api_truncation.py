"""Conversations longer than the context are cut, and answers without an end are ended."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.support.api_requests import HI, post
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration

TEXT = "The capital of France is Paris."
HEADER = "X-Vllamad-Truncated"
CONTEXT = 2048  # of the scripted engine; a word is a token to it

SCENARIOS: dict[str, dict[str, Any]] = {
    "strict": {"strict": True},
    "babbles": {"text": "on and on", "tokens": 5000, "ends_loops": True},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `strict`, whose template insists on alternating turns, and `babbles`."""
    home = fake_home(tmp_path_factory.mktemp("truncation"), ["test", *SCENARIOS])
    config = fake_config(scenarios=SCENARIOS)
    with daemon(home, config=config) as running:
        yield running


def conversation(count: int, words: int = 30) -> list[dict[str, Any]]:
    """A system message of three words, then turns of so many words; the user's is the last."""
    said = " ".join(["word"] * words)
    turns = [{"role": ("user", "assistant")[at % 2], "content": said} for at in range(count)]
    return [{"role": "system", "content": "answer in rhymes"}, *turns]


def asked(one: Daemon, path: str, **body: Any) -> tuple[Any, Any]:
    """The headers and the lines of an answer."""
    answer = one.http.post(path, json={"model": "strict", **body})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.status_code == 200, lines
    return answer.headers, lines


@pytest.mark.case("F1")
@pytest.mark.parametrize("stream", [True, False])
def test_a_long_chat_on_a_strict_template_is_cut_and_answered_and_says_so(
    one: Daemon, stream: bool
) -> None:
    messages = conversation(41)
    headers, lines = asked(
        one, "/api/chat", messages=messages, options={"num_ctx": 512}, stream=stream
    )
    assert "".join(line["message"]["content"] for line in lines) == TEXT
    # 512 tokens hold the system's 3, the newest message, and 7 turns of 60.
    assert lines[-1]["prompt_eval_count"] == 3 + 15 * 30
    assert lines[-1]["truncated_messages"] == 41 - 15
    assert headers[HEADER] == "messages=26"
    assert not any("truncated_messages" in line for line in lines[:-1])
    fields = {"model": "strict:latest", "context_length": 512, "dropped_messages": 26}
    until(lambda: one.logged(LogEvent.REQUEST_TRUNCATED, **fields))
    assert "rhymes" not in one.text()


@pytest.mark.case("F1")
def test_a_chat_that_fits_says_nothing_of_a_cut(one: Daemon) -> None:
    headers, lines = asked(one, "/api/chat", messages=conversation(41), stream=False)
    assert lines[0]["prompt_eval_count"] == 3 + 41 * 30
    assert HEADER not in headers
    assert "truncated_messages" not in lines[0]


@pytest.mark.case("F1")
def test_the_official_client_takes_an_answer_that_says_so(one: Daemon) -> None:
    options = {"num_ctx": 512}
    with ollama.Client(host=one.url) as client:
        whole = client.chat("strict", conversation(41), options=options)
        pieces = [*client.chat("strict", conversation(41), options=options, stream=True)]
    assert whole.message.content == TEXT
    assert "".join(piece.message.content or "" for piece in pieces) == TEXT


@pytest.mark.case("F1")
def test_a_loop_of_tool_calls_keeps_its_question_and_its_newest_result(one: Daemon) -> None:
    messages = conversation(1)
    for _ in range(40):
        call = {"function": {"name": "f", "arguments": {}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_name": "f", "content": "word " * 60})
    _, lines = asked(one, "/api/chat", messages=messages, options={"num_ctx": 300}, stream=False)
    assert lines[0]["prompt_eval_count"] == 3 + 30 + 4 * 60
    assert lines[0]["truncated_messages"] == 36 * 2


@pytest.mark.case("F1")
def test_what_cannot_be_cut_is_the_engines_to_judge(one: Daemon) -> None:
    messages = conversation(1, words=900)
    _, lines = asked(one, "/api/chat", messages=messages, options={"num_ctx": 64}, stream=False)
    assert lines[0]["prompt_eval_count"] == 903, "the worker's own context holds it"


@pytest.mark.case("F1")
def test_truncate_false_leaves_the_whole_to_the_engine(one: Daemon) -> None:
    body = {"messages": conversation(41), "options": {"num_ctx": 512}, "truncate": False}
    headers, lines = asked(one, "/api/chat", stream=False, **body)
    assert lines[0]["prompt_eval_count"] == 3 + 41 * 30
    assert HEADER not in headers


@pytest.mark.case("F1")
def test_ten_thousand_messages_are_answered_at_once(one: Daemon) -> None:
    one.chat("strict")
    messages = conversation(9_999, words=5)
    began = time.monotonic()
    _, lines = asked(one, "/api/chat", messages=messages, stream=False)
    took = time.monotonic() - began
    assert took < 10, f"{took:.1f} s"
    assert CONTEXT - 10 <= lines[0]["prompt_eval_count"] < CONTEXT
    assert lines[0]["truncated_messages"] > 9_000


@pytest.mark.case("F1")
def test_generate_cuts_the_messages_of_its_model(one: Daemon) -> None:
    made = {"model": "told", "from": "strict", "messages": conversation(41)[1:41]}
    assert post(one, "/api/create", made | {"stream": False})[0] == 200
    body = {"model": "told", "prompt": "word word", "options": {"num_ctx": 100}}
    headers, lines = asked(one, "/api/generate", stream=False, **body)
    assert lines[0]["prompt_eval_count"] == 60 + 2
    assert headers[HEADER] == "messages=38"
    assert lines[0]["truncated_messages"] == 38


def test_generate_cuts_a_context_given_back(one: Daemon) -> None:
    body = {"prompt": "one two", "context": [*range(1000)], "options": {"num_ctx": 100}}
    headers, lines = asked(one, "/api/generate", stream=False, **body)
    assert lines[0]["prompt_eval_count"] == 99
    assert lines[0]["truncated_tokens"] == 1000 - 97
    assert headers[HEADER] == f"tokens={1000 - 97}"
    _, lines = asked(one, "/api/generate", stream=False, truncate=False, **body)
    assert lines[0]["prompt_eval_count"] == 1002


@pytest.mark.case("B14")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "key"), [("/api/chat", "messages"), ("/api/generate", "prompt")])
def test_num_predict_0_says_nothing_and_counts_its_token(
    one: Daemon, path: str, key: str, stream: bool
) -> None:
    value: Any = conversation(1) if key == "messages" else "hi"
    body = {key: value, "options": {"num_predict": 0}, "stream": stream}
    [last] = asked(one, path, **body)[1]
    assert last["done_reason"] == "length"
    assert last["eval_count"] == 1
    assert (last.get("response") or last.get("message", {}).get("content") or "") == ""


@pytest.mark.case("B1")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("options", "made", "reason"),
    [
        ({}, 3 * 64, "stop"),  # words and counts of them
        ({"num_predict": -1}, 3 * 64, "stop"),
        ({"num_ctx": 128}, 3 * 64, "stop"),
        ({"num_ctx": 10}, 100, "length"),
        ({"num_ctx": 128, "num_predict": 1500}, 1280, "length"),
        ({"num_predict": 1500}, 1500, "length"),  # the client's own limit is its own affair
    ],
)
def test_an_answer_without_an_end_is_ended(
    one: Daemon, options: dict[str, Any], made: int, reason: str, stream: bool
) -> None:
    for path, asks in (("/api/generate", {"prompt": "x"}), ("/api/chat", {"messages": HI})):
        body = {"model": "babbles", "options": options, "stream": stream, **asks}
        last = asked(one, path, **body)[1][-1]
        assert (last["eval_count"], last["done_reason"]) == (made, reason)


@pytest.mark.case("B1")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("limit", "made", "reason"),
    [({}, 3 * 64, "stop"), ({"max_tokens": -1}, 3 * 64, "stop"),
     ({"max_tokens": 1500}, 1500, "length"), ({"max_completion_tokens": 9}, 9, "length")],
)  # fmt: skip
def test_an_answer_of_v1_without_an_end_is_ended(
    one: Daemon, limit: dict[str, Any], made: int, reason: str, stream: bool
) -> None:
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key="none") as client:
        body: Any = {"model": "babbles", "messages": HI, "stream": stream, **limit}
        if stream:
            body["stream_options"] = {"include_usage": True}
        answer: Any = client.chat.completions.create(**body)
        *_, last, told = answer if stream else (answer, answer)
    assert told.usage.completion_tokens == made
    assert last.choices[0].finish_reason == reason


@pytest.mark.case("B1")
def test_max_repetitions_0_lets_an_answer_repeat_itself(tmp_path: Path) -> None:
    config = fake_config(scenarios=SCENARIOS, more="[server]\nmax_repetitions = 0")
    with daemon(fake_home(tmp_path, ["babbles"]), config=config) as free:
        answer = free.chat("babbles").json()
    assert (answer["eval_count"], answer["done_reason"]) == (CONTEXT, "length")
