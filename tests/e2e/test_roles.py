"""Conversations that strict templates refuse are answered on every route, on real vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chat_templates import FAMILIES
from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL

pytestmark = pytest.mark.e2e

STRICT = ("gemma2", "ministral-2512", "qwen3.5")
CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "two system messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ],
    "a system message later on": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "And now?"},
    ],
    "two user turns": [
        {"role": "user", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ],
    "the assistant first": [
        {"role": "assistant", "content": "How can I help?"},
        {"role": "user", "content": "Hello"},
    ],
}


@pytest.fixture(scope="module", params=STRICT)
def strict(real: Daemon, request: pytest.FixtureRequest) -> str:
    """A model with the template of a strict family."""
    name = f"strict-{request.param}"
    body: dict[str, Any] = {"model": name, "from": MODEL, "template": FAMILIES[request.param]}
    answer = real.http.post("/api/create", json=body)
    assert answer.status_code == 200, answer.text
    return name


def bodies(messages: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """The conversation on each route."""
    return {
        "/api/chat": {"messages": messages, "stream": False, "options": {"num_predict": 4}},
        "/v1/chat/completions": {"messages": messages, "max_tokens": 4},
        "/v1/responses": {"input": messages, "max_output_tokens": 4},
        "/v1/messages": {"messages": messages, "max_tokens": 4},
        "/v1/messages/count_tokens": {"messages": messages},
    }


@pytest.mark.case("F2", "F3")
def test_each_conversation_is_answered_on_each_route(real: Daemon, strict: str) -> None:
    answers = {
        (what, path): real.http.post(path, json={"model": strict, **body})
        for what, messages in CONVERSATIONS.items()
        for path, body in bodies(messages).items()
    }
    assert {key: one.text for key, one in answers.items() if one.status_code != 200} == {}
    assert len(answers) == 20
