"""Requests that have no end of their own, and conversations that are too long, on real vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL

pytestmark = pytest.mark.e2e

STRICT = """
{%- set turns = messages %}
{%- if messages[0]['role'] == 'system' %}
  {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
  {%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
  {%- if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
  {%- endif %}
  {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""


def asked(one: Daemon, path: str, **body: Any) -> tuple[Any, list[Any]]:
    """The headers and the lines of an answer."""
    answer = one.http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 200, answer.text
    return answer.headers, [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture(scope="module")
def strict(real: Daemon) -> str:
    """A model whose template insists on alternating turns, the user's first."""
    asked(real, "/api/create", model="strict", **{"from": MODEL, "template": STRICT})
    return "strict"


@pytest.mark.case("F1")
def test_a_long_chat_on_a_strict_template_is_cut_and_answered(real: Daemon, strict: str) -> None:
    messages: list[dict[str, str]] = [{"role": "system", "content": "Answer briefly."}]
    for number in range(60):
        messages.append({"role": "user", "content": f"Say the number {number}, and why."})
        messages.append({"role": "assistant", "content": f"It is {number}, as you said so."})
    messages.append({"role": "user", "content": "What is the capital of France?"})
    body: dict[str, Any] = {"model": strict, "messages": messages, "stream": False}
    body["options"] = {"num_ctx": 512, "temperature": 0, "num_predict": 16}
    headers, [answer] = asked(real, "/api/chat", **body)
    assert "Paris" in answer["message"]["content"]
    assert 400 < answer["prompt_eval_count"] < 512
    dropped = answer["truncated_messages"]
    assert dropped % 2 == 0
    assert headers["X-Vllamad-Truncated"] == f"messages={dropped}"
    [shown] = asked(real, "/api/chat", **body, _debug_render_only=True)[1]
    prompt = shown["_debug_info"]["rendered_template"]
    assert "Answer briefly." in prompt
    assert "capital of France" in prompt
    assert f"Say the number {dropped // 2 - 1}," not in prompt
    assert f"Say the number {dropped // 2}," in prompt


@pytest.mark.case("B1")
def test_a_prompt_longer_than_num_ctx_has_an_end(real: Daemon) -> None:
    prompt = "Why is the sky blue? " * 60
    options = {"num_ctx": 128, "temperature": 0}
    _, lines = asked(real, "/api/generate", prompt=prompt, options=options)
    assert lines[-1]["prompt_eval_count"] > 330
    assert lines[-1]["eval_count"] <= 10 * 128
    assert lines[-1]["done_reason"] in ("stop", "length")


@pytest.mark.case("B1")
@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
def test_an_answer_that_only_repeats_itself_is_ended(real: Daemon, path: str) -> None:
    body: dict[str, Any] = {"prompt": "ha " * 300, "raw": True, "stream": False}
    body["options"] = {"temperature": 0}
    if path.startswith("/v1"):
        body = {"prompt": "ha " * 300, "temperature": 0, "max_tokens": -1}
    [answer] = asked(real, path, **body)[1]
    if path.startswith("/v1"):
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] < 1500
    else:
        assert answer["done_reason"] == "stop"
        assert answer["eval_count"] < 1500
