"""The real parsers of the real engine: chosen by the template, and what a client hears of them.

With VLLAMAD_RECORD=1 what comes over the engine's socket is written to `tests/fakes/recorded/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import openai.types.responses
import pytest

from tests.e2e.staging import configured, stage
from tests.fakes.family_scripts import ACTS, OPENS, TOOLS, TURNS, Act
from tests.support.daemon import Daemon, daemon
from tests.support.sdk_types import faults
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.e2e

FIM = Act(name="fim", template="", script="a, b):\n    ")
DEAF = Act(name="deaf", template=TURNS + OPENS, script="hm\n</think>\n\nHello.")


@pytest.fixture(scope="module")
def stage_daemon(
    prepared: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Daemon]:
    """A daemon with every act; one is loaded at a time."""
    folder = tmp_path_factory.mktemp("acts")
    config = (
        f'[paths]\nstate = "{prepared}/state"\ncache = "{prepared}/cache"\n'
        "[scheduler]\nmax_loaded_models = 1\n"
    )
    for act in (*ACTS, FIM):
        config += configured(act, stage(folder / act.name, checkpoint, act))
    config += configured(DEAF, stage(folder / DEAF.name, checkpoint, DEAF, tokens=False))
    home = tmp_path_factory.mktemp("home")
    with daemon(home, config=config) as one:
        one.http.timeout = 180.0
        yield one


def test_the_parser_chosen_for_a_family_separates_what_its_model_says(
    stage_daemon: Daemon, act: Act
) -> None:
    body = {"model": act.name, "stream": False, **act.request}
    message = stage_daemon.http.post("/api/chat", json=body).json()["message"]
    assert message.get("thinking", "") == act.thinking
    assert message["content"] == act.content
    calls = [call["function"] for call in message.get("tool_calls", [])]
    assert tuple((call["name"], call["arguments"]) for call in calls) == act.calls

    said = engine_stream(stage_daemon, act)
    if os.environ.get("VLLAMAD_RECORD"):
        act.recorded.write_bytes(said)
    assert told(said) == told(act.recorded.read_bytes()), "the recording is out of date"


@pytest.fixture(
    scope="module", params=[act for act in ACTS if act.think is None], ids=lambda act: act.name
)
def act(request: pytest.FixtureRequest) -> Act:
    """One act after the other, so that each is loaded once."""
    return request.param


@pytest.mark.case("F5", "F11", "B8")
def test_thoughts_and_calls_are_items_of_a_response(stage_daemon: Daemon, act: Act) -> None:
    client = openai.OpenAI(base_url=f"{stage_daemon.url}/v1", api_key="x", max_retries=0)
    # Codex sends its own functions beside hosted ones.
    functions = [{"type": "function", **tool["function"], "strict": None} for tool in TOOLS]
    body: dict[str, Any] = {"model": act.name, "input": act.request["messages"]}
    if act.calls:
        body["tools"] = [{"type": "web_search"}, *functions, {"type": "local_shell"}]
    whole: Any = client.responses.create(**body)
    answer = whole.to_dict(mode="json")
    assert faults(answer, openai.types.responses.Response) == []
    assert response_of(answer) == (act.thinking.strip(), act.content.strip(), act.calls)
    calls = [item for item in answer["output"] if item["type"] == "function_call"]
    assert len({call["call_id"] for call in calls}) == len(calls)
    raw: Any = client.responses.create(**body, stream=True)
    events = [event.to_dict(mode="json") for event in raw]
    wanted = openai.types.responses.ResponseStreamEvent
    # OpenAI's reference has the name in the last event of a call's arguments; its SDK, not yet.
    assert [fault for event in events for fault in faults(event, wanted, extra=["name"])] == []
    assert response_of(events[-1]["response"]) == response_of(answer)
    if calls:
        results = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
            for call in calls
        ]
        body["input"] = [*body["input"], *answer["output"], *results]
        assert client.responses.create(**body).output


@pytest.mark.case("F5", "F11")
def test_thoughts_and_calls_are_blocks_of_a_message(stage_daemon: Daemon, act: Act) -> None:
    client = anthropic.Anthropic(base_url=stage_daemon.url, api_key="x", max_retries=0)
    body: dict[str, Any] = {"model": act.name, "max_tokens": 200}
    body["messages"] = act.request["messages"]
    if act.calls:
        functions = [tool["function"] for tool in TOOLS]
        body["tools"] = [
            {"name": one["name"], "input_schema": one["parameters"]} for one in functions
        ]
        body["tools"].append({"type": "web_search_20250305", "name": "web_search"})
    whole: Any = client.messages.create(**body)
    answer = whole.to_dict(mode="json")
    assert faults(answer, anthropic.types.Message) == []
    assert message_of(answer) == (act.thinking.strip(), act.content.strip(), act.calls)
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert len({call["id"] for call in calls}) == len(calls)
    assert answer["stop_reason"] == ("tool_use" if calls else "end_turn")
    with client.messages.stream(**body) as stream:
        streamed = stream.get_final_message().to_dict(mode="json")
    assert message_of(streamed) == message_of(answer)
    raw: Any = client.messages.create(**body, stream=True)
    events = [event.to_dict(mode="json") for event in raw]
    wanted = anthropic.types.RawMessageStreamEvent
    assert [fault for event in events for fault in faults(event, wanted)] == []
    if calls:
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": "sun"} for call in calls
        ]
        turns = [{"role": "assistant", "content": answer["content"]}]
        body["messages"] = [*body["messages"], *turns, {"role": "user", "content": results}]
        assert client.messages.create(**body).content


def response_of(answer: dict[str, Any]) -> tuple[str, str, tuple[tuple[str, Any], ...]]:
    """What a response thinks, says and calls."""
    thinking = content = ""
    calls: list[tuple[str, Any]] = []
    for item in answer["output"]:
        if item["type"] == "function_call":
            calls.append((item["name"], json.loads(item["arguments"])))
        elif item["type"] == "reasoning":
            thinking += "".join(part["text"] for part in item["content"] or item["summary"])
        else:
            content += "".join(part["text"] for part in item["content"])
    return thinking.strip(), content.strip(), tuple(calls)


def message_of(answer: dict[str, Any]) -> tuple[str, str, tuple[tuple[str, Any], ...]]:
    """What a message of Anthropic's API thinks, says and calls."""
    blocks = answer["content"]
    thinking = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    content = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple((one["name"], one["input"]) for one in blocks if one["type"] == "tool_use")
    return thinking.strip(), content.strip(), calls


def test_the_tokens_around_a_gap_are_tokens_to_the_engine(stage_daemon: Daemon) -> None:
    """`def add(` and `return a` are three and two tokens, and three are around them."""
    body = {"model": "fim", "prompt": "def add(", "suffix": "return a", "stream": False}
    shown = stage_daemon.http.post("/api/show", json={"model": "fim"}).json()
    assert shown["capabilities"] == ["completion", "insert"]
    answer = stage_daemon.http.post("/api/generate", json=body).json()
    assert answer["response"] == FIM.script
    assert answer["prompt_eval_count"] == 8
    asked = {key: body[key] for key in ("model", "prompt", "suffix")}
    answer = stage_daemon.http.post("/v1/completions", json=asked).json()
    assert answer["choices"][0]["text"] == FIM.script
    assert answer["usage"]["prompt_tokens"] == 8


def test_an_engine_that_refuses_a_parser_is_started_without_it(stage_daemon: Daemon) -> None:
    body = {"model": "deaf", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    answer = stage_daemon.http.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"]["content"] == DEAF.script, "nobody could tell them apart"
    assert stage_daemon.logged(LogEvent.WORKER_WITHOUT_PARSERS, model="deaf:latest")
    refused = stage_daemon.http.post("/api/chat", json=body | {"think": True})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": '"deaf" does not support thinking'},
    )


def engine_stream(one: Daemon, act: Act) -> bytes:
    """What the engine itself says, asked as the gateway asks it."""
    [endpoint] = one.run.glob("w/*/s")
    asked: dict[str, Any] = {
        "model": act.name,
        "stream": True,
        "stream_options": {"include_usage": True},
        **act.request,
    }
    if (think := asked.pop("think")) is not None:
        asked["chat_template_kwargs"] = {"enable_thinking": think}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(endpoint)), timeout=60) as client:
        answer = client.post("http://engine/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.content


def told(stream: bytes) -> Any:
    """What a stream says in all: how many tokens share a chunk is chance."""
    reasoning = content = finish = ""
    calls: dict[int, list[str]] = {}
    for line in stream.decode().split("\n\n"):
        payload = line.removeprefix("data: ")
        for choice in json.loads(payload)["choices"] if payload.startswith("{") else ():
            delta = choice["delta"]
            reasoning += delta.get("reasoning") or ""
            content += delta.get("content") or ""
            finish = choice["finish_reason"] or finish
            for call in delta.get("tool_calls") or ():
                parts = calls.setdefault(call["index"], ["", ""])
                parts[0] += call["function"].get("name") or ""
                parts[1] += call["function"].get("arguments") or ""
    return reasoning, content, calls, finish
