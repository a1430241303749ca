"""Thinking as real parsers separate it: on, off, by level, and never inside the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.family_scripts import ACTS, Act
from tests.support.daemon import Daemon

pytestmark = pytest.mark.integration

THINKING = [act for act in ACTS if act.thinking]


def asked(acting: Daemon, act: Act, path: str = "/api/chat", **more: Any) -> list[dict[str, Any]]:
    """The lines of an answer."""
    spoken = act.request if path == "/api/chat" else {"prompt": "How is the weather?"}
    response = acting.http.post(path, json={"model": act.name, **spoken, **more})
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.parametrize("act", THINKING, ids=lambda act: act.name)
@pytest.mark.parametrize("think", [None, True, "low", "max"])
@pytest.mark.vector(46)
def test_46_thoughts_come_first_and_apart_from_the_answer(
    acting: Daemon, act: Act, think: bool | str | None
) -> None:
    lines = asked(acting, act, think=think)
    assert list(lines[0]) == ["model", "created_at", "message", "done"]
    assert list(lines[0]["message"]) == ["role", "content", "thinking"]
    messages = [line["message"] for line in lines]
    assert "".join(message.get("thinking", "") for message in messages) == act.thinking
    assert "".join(message["content"] for message in messages) == act.content
    thinks = ["thinking" in message for message in messages]
    assert thinks == sorted(thinks, reverse=True)
    assert all(not message["content"] for message in messages if "thinking" in message)


@pytest.mark.parametrize("act", THINKING, ids=lambda act: act.name)
@pytest.mark.vector(46)
def test_46_generate_has_them_under_its_own_keys(acting: Daemon, act: Act) -> None:
    lines = asked(acting, act, "/api/generate")
    assert list(lines[0]) == ["model", "created_at", "response", "thinking", "done"]
    assert "".join(line.get("thinking", "") for line in lines) == act.thinking
    assert "".join(line["response"] for line in lines) == act.content
    [whole] = asked(acting, act, "/api/generate", stream=False)
    assert (whole["thinking"], whole["response"]) == (act.thinking, act.content)


@pytest.mark.parametrize("act", THINKING, ids=lambda act: act.name)
def test_think_false_leaves_the_answer_alone(acting: Daemon, act: Act) -> None:
    lines = asked(acting, act, think=False)
    assert not any("thinking" in line["message"] for line in lines)
    assert "".join(line["message"]["content"] for line in lines) == act.content


@pytest.mark.vector(36)
def test_36_thinking_is_refused_where_the_model_does_not_think(acting: Daemon) -> None:
    body = {"model": "hermes", "messages": [{"role": "user", "content": "x"}], "think": "low"}
    answer = acting.http.post("/api/chat", json=body)
    assert answer.status_code == 400
    assert answer.json() == {"error": '"hermes" does not support thinking'}
