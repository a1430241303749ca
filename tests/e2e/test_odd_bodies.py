"""Wrong and odd requests on the routes of /v1, on the real engine: no text of it comes back."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL
from tests.support.sdk_types import faults

pytestmark = pytest.mark.e2e

HI = [{"role": "user", "content": "Say hi."}]
BASE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI, "max_tokens": 4},
    "/v1/completions": {"prompt": "1 2 3", "max_tokens": 4},
    "/v1/responses": {"input": "Say hi.", "max_output_tokens": 4},
    "/v1/messages": {"messages": HI, "max_tokens": 4},
}
CHAT, COMPLETIONS = list(BASE)[:2]
MARKS = re.compile(
    r"'loc'|validation error|pydantic|Traceback|parameter=|vllm(?!-0)|VLLM_|--[a-z]|\.py\b"
    r"|body\.|Input should be|site-packages|prompt_embeds|max_model_len"
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x"}}

# Taken by every server in front of which a client is left alone with its defaults.
TAKEN: list[dict[str, Any]] = [
    {"top_p": 0}, {"top_p": 3}, {"top_p": -1}, {"temperature": 3}, {"temperature": -2},
    {"temperature": 0}, {"top_k": -5}, {"top_k": 10**12}, {"tools": []},
    {"tool_choice": "auto"}, {"tool_choice": "auto", "tools": []}, {"stream": None},
    {"temperature": None, "top_p": None, "tools": None, "tool_choice": None, "stream": False},
]  # fmt: skip
OF_CHOICES: list[dict[str, Any]] = [
    {"frequency_penalty": 3}, {"presence_penalty": -3}, {"min_p": 5}, {"repetition_penalty": 0},
    {"stop": ""}, {"stop": ["", "x"]}, {"stop": None}, {"seed": 2**70}, {"seed": -1},
    {"max_tokens": 0}, {"max_tokens": -1, "stop": " "}, {"max_tokens": 10**9, "stop": " "},
    {"n": 2, "temperature": 0}, {"n": 3, "top_p": 0}, {"user": 5}, {"logit_bias": None},
    {"logit_bias": {"5": 1000}}, {"stream_options": {"include_usage": True}},
    {"min_tokens": 9, "max_tokens": 2}, {"min_tokens": 10**9}, {"stop_token_ids": []},
    {"response_format": None},
    {"response_format": {"type": "text"}}, {"response_format": JSON_SCHEMA},
    {"top_logprobs": 3}, {"best_of": 3}, {"functions": []}, {"max_tokens": 4.0},
]  # fmt: skip
REFUSED: list[dict[str, Any]] = [
    {"temperature": "x"}, {"temperature": True}, {"top_p": []}, {"stream": "yes"}, {"top_k": 1.5},
    {"max_tokens": True}, {"max_tokens": "4"}, {"max_tokens": 1.5}, {"n": 99}, {"n": "2"},
    {"seed": "x"}, {"stop": 5}, {"stop": [{}]}, {"logit_bias": []}, {"logit_bias": {"x": 1}},
    {"logit_bias": {"99999999": 1}}, {"stop_token_ids": [99999999]}, {"stop_token_ids": "x"},
    {"logprobs": "x"}, {"response_format": {"type": "zzz"}}, {"response_format": 5},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": {
        "type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}}}},
    {"messages": 5, "prompt": 5}, {"messages": [], "prompt": []},
    {"messages": [{"role": "user", "content": "x " * 20_000}], "prompt": "x " * 20_000},
    {"prompt": [10**9], "messages": [{"role": 5}]}, {"prompt": "", "messages": [{"content": 5}]},
]  # fmt: skip
OF_CHAT: list[dict[str, Any]] = [
    {"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "required"}, {"tools": [5]},
    {"messages": [{"role": "user", "content": [{"type": "zzz"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "data:image/png;base64,iVBORw0KGgo="}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": 5}}]}]},
    {"top_logprobs": 99}, {"reasoning_effort": "zzz"}, {"logprobs": 5},
]  # fmt: skip


def ask(real: Daemon, path: str, more: dict[str, Any]) -> Any:
    body = BASE[path] | {"model": MODEL} | more
    if path == "/v1/responses" and "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    answer = real.http.post(path, content=json.dumps(body).encode())
    assert not MARKS.search(answer.text), answer.text
    return answer


@pytest.mark.case("B6", "F4", "F6", "B3", "B4")
def test_no_reply_has_a_mark_of_the_engine(real: Daemon) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    for path in BASE:
        odd = OF_CHOICES if path in (CHAT, COMPLETIONS) else ()
        for more in [*TAKEN, *odd, *REFUSED, *OF_CHAT]:
            status = ask(real, path, more).status_code
            seen[path, status] += 1
            assert status in (200, 400), (path, more, status)
    print(sorted(seen.items()))
    assert all(seen[path, status] for path in BASE for status in (200, 400))


@pytest.mark.case("F6", "B3")
def test_what_is_out_of_range_is_answered(real: Daemon) -> None:
    assert TAKEN
    assert BASE
    for path in BASE:
        for more in [*TAKEN, *(OF_CHOICES if path in (CHAT, COMPLETIONS) else ())]:
            answer = ask(real, path, more)
            assert answer.status_code == 200, (path, more, answer.text)


@pytest.mark.case("B6")
def test_what_is_wrong_is_refused_with_its_field(real: Daemon) -> None:
    assert REFUSED
    for path, bodies in ((CHAT, [*REFUSED, *OF_CHAT]), (COMPLETIONS, REFUSED)):
        for more in bodies:
            answer = ask(real, path, more)
            assert answer.status_code == 400, (path, more, answer.text)
            text = answer.json()["error"]["message"]
            assert "refused this request" not in text, (path, more, text)


@pytest.mark.case("B3")
def test_several_greedy_answers_are_alike(real: Daemon) -> None:
    answer = ask(real, CHAT, {"n": 3, "temperature": 0}).json()
    said = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(said) == 3
    assert len({*said}) == 1
    assert answer["usage"]["completion_tokens"] == 12


@pytest.mark.case("F11", "B7")
@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 2}, {"n": 2}], ids=str)
def test_every_reply_is_of_the_official_sdks_types(real: Daemon, more: dict[str, Any]) -> None:
    for path in (CHAT, COMPLETIONS):
        asked = more if path == CHAT or "logprobs" not in more else {"logprobs": 2}
        answer = ask(real, path, asked).json()
        assert faults(answer, ChatCompletion if path == CHAT else Completion) == []
        for event in ask(real, path, asked | {"stream": True}).text.split("\n\n")[:-2]:
            kind = ChatCompletionChunk if path == CHAT else Completion
            chunk = json.loads(event.removeprefix("data: "))
            assert faults(chunk, kind, nullable={"choices.finish_reason"}) == []
