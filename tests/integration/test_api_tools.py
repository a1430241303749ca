"""Tool calls as real parsers stream them: whole, their arguments objects, in Ollama's places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from tests.fakes.family_scripts import ACTS, TOOLS, Act
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.family_models import install_family
from tests.support.model_families import TOOL_PARSERS

pytestmark = pytest.mark.integration

CALLING = [act for act in ACTS if act.calls]


def asked(acting: Daemon, act: Act, **more: Any) -> list[dict[str, Any]]:
    """The lines of an answer."""
    body = {"model": act.name, **act.request, **more}
    response = acting.http.post("/api/chat", json=body)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def calls_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for line in lines for call in line["message"].get("tool_calls", [])]


@pytest.mark.parametrize("act", CALLING, ids=lambda act: act.name)
def test_a_streamed_answer_has_whole_calls_on_one_line_before_the_last(
    acting: Daemon, act: Act
) -> None:
    lines = asked(acting, act)
    [line] = [line for line in lines if "tool_calls" in line["message"]]
    assert line is lines[-2]
    assert line["done"] is False
    assert line["message"]["content"] == ""
    calls = line["message"]["tool_calls"]
    assert [call["function"]["index"] for call in calls] == list(range(len(calls)))
    assert tuple((c["function"]["name"], c["function"]["arguments"]) for c in calls) == act.calls
    assert all(list(call) == ["id", "function"] and call["id"] for call in calls)
    assert len({call["id"] for call in calls}) == len(calls)
    assert lines[-1]["done_reason"] == "stop", "there is no other word for it in Ollama"
    assert "".join(line["message"]["content"] for line in lines) == act.content


@pytest.mark.parametrize("act", CALLING, ids=lambda act: act.name)
@pytest.mark.vector(45)
def test_45_an_answer_in_one_piece_carries_the_same_calls(acting: Daemon, act: Act) -> None:
    [whole] = asked(acting, act, stream=False)
    assert list(whole["message"]) == [
        key
        for key in ("role", "content", "thinking", "tool_calls")
        if key != "thinking" or act.thinking
    ]
    streamed, at_once = calls_in(asked(acting, act)), calls_in([whole])
    assert [call["function"] for call in streamed] == [call["function"] for call in at_once]
    assert all(list(call) == ["id", "function"] and call["id"] for call in at_once)
    assert all(list(c["function"]) == ["index", "name", "arguments"] for c in at_once)
    assert (whole["message"]["role"], whole["done_reason"]) == ("assistant", "stop")


def test_the_order_of_a_calls_arguments_is_the_models(acting: Daemon) -> None:
    [act] = [act for act in ACTS if act.name == "mistral"]
    first, _ = calls_in(asked(acting, act))
    assert list(first["function"]["arguments"]) == ["city", "days", "note"]


@pytest.mark.parametrize("act", CALLING, ids=lambda act: act.name)
def test_the_official_client_reads_the_calls(acting: Daemon, act: Act) -> None:
    with ollama.Client(host=acting.url, timeout=60) as client:
        message = client.chat(act.name, act.request["messages"], tools=TOOLS).message
    calls = message.tool_calls or []
    assert tuple((call.function.name, dict(call.function.arguments)) for call in calls) == act.calls


def test_the_result_of_a_call_is_taken_back(acting: Daemon) -> None:
    """Client and model agree on calls without ever seeing each other's ids."""
    [act] = [act for act in ACTS if act.name == "hermes"]
    [line] = asked(acting, act, stream=False)
    answered = [
        *act.request["messages"],
        line["message"],
        {"role": "tool", "tool_name": "get_weather", "content": "11 degrees"},
    ]
    assert asked(acting, act, messages=answered)[-1]["done"] is True


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("qwen3", ["completion", "tools", "thinking"]),
        ("hermes", ["completion", "tools"]),
        ("deepseek_r1", ["completion", "thinking"]),
    ],
)
def test_show_and_tags_promise_what_the_template_and_the_engine_allow(
    acting: Daemon, name: str, capabilities: list[str]
) -> None:
    shown = acting.http.post("/api/show", json={"model": name}).json()
    assert shown["capabilities"] == capabilities
    tags = {model["name"]: model for model in acting.http.get("/api/tags").json()["models"]}
    assert tags[f"{name}:latest"]["capabilities"] == capabilities


def test_a_parser_that_the_engine_lacks_is_not_promised(tmp_path: Path) -> None:
    home = fake_home(tmp_path, [], tool_parsers="mistral")
    for act in ACTS:
        install_family(home, act)
    with daemon(home, config=fake_config()) as one:
        tags = one.http.get("/api/tags").json()["models"]
        assert [tag["name"] for tag in tags if "tools" in tag["capabilities"]] == ["mistral:latest"]
        listed = json.loads(one.ctl("list", "--json"))["models"]
        assert [model["name"] for model in listed if "tools" in model["capabilities"]] == [
            "mistral:latest"
        ]
        body = {"model": "hermes", **next(act for act in ACTS if act.name == "hermes").request}
        assert one.http.post("/api/chat", json=body).status_code == 400


def test_what_another_runtime_can_parse_is_promised_after_a_reload(tmp_path: Path) -> None:
    home = fake_home(tmp_path, [], tool_parsers="mistral")
    for act in ACTS:
        install_family(home, act)
    with daemon(home, config=fake_config()) as one:
        assert "tools" not in capabilities_of(one, "hermes")
        facts = home / "state" / "runtimes" / "fake" / "runtime.json"
        parsers = {"tool_parsers": TOOL_PARSERS.split()}
        facts.write_text(json.dumps(json.loads(facts.read_text()) | parsers))
        one.ctl("reload", "--wait")
        assert "tools" in capabilities_of(one, "hermes")
        listed = json.loads(one.ctl("list", "--json"))["models"]
        [hermes] = [model for model in listed if model["name"] == "hermes:latest"]
        assert "tools" in hermes["capabilities"]


def capabilities_of(one: Daemon, model: str) -> list[str]:
    """On a connection of its own: an old one may be with a gateway from before the reload."""
    return httpx.post(f"{one.url}/api/show", json={"model": model}).json()["capabilities"]


@pytest.mark.vector(35)
def test_35_tools_are_refused_where_no_parser_fits(acting: Daemon) -> None:
    body = {"model": "deepseek_r1", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
    answer = acting.http.post("/api/chat", json=body)
    assert answer.status_code == 400
    text = "registry.ollama.ai/library/deepseek_r1:latest does not support tools"
    assert answer.json() == {"error": text}
