"""Sessions of Codex and Claude Code go on, by the official SDKs, with the scripted engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import anthropic
import openai
import openai.types.responses
import pytest

from tests.support.agent_sessions import CLAUDE, CODEX
from tests.support.api_requests import post
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.sdk_types import faults
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("sessions"), ["test", "echo"])
    with daemon(home, config=fake_config(scenarios={"echo": {"echoes": True}})) as running:
        yield running


def left_out(one: Daemon, route: str) -> Counter[str]:
    """The kinds that the log says were left out, each as often as it says so."""
    lines = one.logged(LogEvent.REQUEST_ITEM_IGNORED, route=route)
    return Counter(line.partition(" kind=")[2] for line in lines)


@pytest.mark.case("F5", "F11", "B8")
@pytest.mark.parametrize("stream", [False, True])
def test_a_session_of_codex_goes_on(one: Daemon, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{one.url}/v1", api_key="x", max_retries=0)
    required = ("error", "metadata", "completed_at", "incomplete_details")
    answer: Any = client.responses.create(model="test", stream=stream, **CODEX)
    if not stream:
        assert answer.output_text
        body = answer.to_dict(mode="json")
        assert faults(body, openai.types.responses.Response, required=required) == []
        assert body["completed_at"] > 0
    else:
        events = list(held(answer))
        wanted = openai.types.responses.ResponseStreamEvent
        places = [f"response.{key}" for key in required]
        assert [one for event in events for one in faults(event, wanted, required=places)] == []
        assert events[-1]["type"] == "response.completed"
    kinds = left_out(one, "/v1/responses")
    assert set(kinds.values()) == {1}, "each kind once, however often it is sent"
    assert {name.strip('"') for name in kinds} == {
        "tool web_search", "tool local_shell", "tool image_generation", "item web_search_call",
        "item local_shell_call", "item local_shell_call_output", "item reasoning",
    }  # fmt: skip


def held(events: Any) -> Iterator[dict[str, Any]]:
    for event in events:
        yield event.to_dict(mode="json")


@pytest.mark.case("F5", "F11", "B5")
@pytest.mark.parametrize("stream", [False, True])
def test_a_session_of_claude_code_goes_on(one: Daemon, stream: bool) -> None:
    client = anthropic.Anthropic(base_url=one.url, api_key="x", max_retries=0)
    required = ("stop_reason", "stop_sequence")
    answer: Any = client.messages.create(model="test", stream=stream, **CLAUDE)
    if not stream:
        body = answer.to_dict(mode="json")
        assert faults(body, anthropic.types.Message, required=required) == []
        assert body["id"].startswith("msg_")
    else:
        events = list(held(answer))
        wanted = anthropic.types.RawMessageStreamEvent
        places = [f"message.{key}" for key in required]
        assert [one for event in events for one in faults(event, wanted, required=places)] == []
        assert events[0]["message"]["id"].startswith("msg_")
    kinds = left_out(one, "/v1/messages")
    assert set(kinds.values()) == {1}, "each kind once, however often it is sent"
    assert {name.strip('"') for name in kinds} == {
        "tool web_search_20250305", "block document", "block server_tool_use",
        "block tool_reference",
    }  # fmt: skip


@pytest.mark.case("B4", "F4")
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/responses", {"input": "hi", "tool_choice": "auto"}),
     ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}],
                       "tools": [], "tool_choice": {"type": "auto"}})],
)  # fmt: skip
def test_a_choice_among_no_tools_is_ignored(one: Daemon, path: str, body: dict[str, Any]) -> None:
    assert post(one, path, {"model": "test"} | body)[0] == 200


@pytest.mark.case("B10")
def test_a_wrong_body_is_told_in_anthropics_types(one: Daemon) -> None:
    status, answer = post(one, "/v1/messages", [])
    assert (status, answer["error"]["message"]) == (
        400, "json: cannot unmarshal array into Go value of type anthropic.MessagesRequest"
    )  # fmt: skip


@pytest.mark.case("B11")
def test_a_missing_model_is_told_before_a_missing_input(one: Daemon) -> None:
    status, answer = post(one, "/v1/responses", {"model": "nope"})
    assert (status, answer["error"]["message"]) == (404, "model 'nope' not found")
    status, answer = post(one, "/v1/responses", {"model": "test"})
    assert (status, answer["error"]["message"]) == (400, "input must be a string or array")


@pytest.mark.case("K2")
def test_the_engine_receives_ollamas_defaults_for_messages(one: Daemon) -> None:
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    status, answer = post(one, "/v1/messages", body)
    assert status == 200
    received = json.loads(answer["content"][0]["text"])
    chosen = {name: received.get(name) for name in ("temperature", "top_p", "top_k")}
    assert chosen == {"temperature": 0.8, "top_p": 0.9, "top_k": 40}
