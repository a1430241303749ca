"""The strict check of the SDKs' types finds what their own loose reading lets pass."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from tests.support.paths import RECORDED
from tests.support.sdk_types import faults

GOOD: dict[str, Any] = {
    "id": "a",
    "created": 1,
    "model": "m",
    "object": "chat.completion",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
    ],
}


def with_choice(**more: Any) -> dict[str, Any]:
    return GOOD | {"choices": [GOOD["choices"][0] | more]}


def test_a_good_reply_has_no_faults() -> None:
    assert faults(GOOD, ChatCompletion) == []
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert faults(with_choice(message=message), ChatCompletion) == []


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({}, "id: missing, ChatCompletion requires it"),
        (GOOD | {"created": "x"}, "created: 'x' is no int"),
        (GOOD | {"created": True}, "created: True is no int"),
        (GOOD | {"object": "x"}, "object: 'x' is none of ['chat.completion']"),
        (GOOD | {"choices": {}}, "choices: {} is no list"),
        (GOOD | {"choices": [1]}, "choices: 1 is no Choice"),
        (GOOD | {"metrics": None}, "metrics: ChatCompletion has no such key"),
        (GOOD | {"metadata": {"a": 1}}, "metadata: 1 is no str"),
        (with_choice(stop_reason=None), "choices.stop_reason: Choice has no such key"),
        (
            with_choice(message={"role": "assistant", "tool_calls": [{"type": "function"}]}),
            "choices.message.tool_calls.id: missing, "
            "ChatCompletionMessageFunctionToolCall requires it",
        ),
    ],
)
def test_each_fault_is_named_with_its_place(reply: object, fault: str) -> None:
    assert fault in faults(reply, ChatCompletion)


def test_what_is_welcome_is_no_fault() -> None:
    reply = with_choice(
        finish_reason=None, message={"role": "assistant", "reasoning": "hm", "content": ""}
    )
    assert len(faults(reply, ChatCompletion)) == 2
    extra, nullable = {"choices.message.reasoning"}, {"choices.finish_reason"}
    assert faults(reply, ChatCompletion, extra=extra, nullable=nullable) == []


def test_a_key_can_be_required_beyond_the_types_own() -> None:
    missing = "choices.message.refusal: missing, ChatCompletionMessage requires it"
    assert faults(GOOD, ChatCompletion, required={"choices.message.refusal"}) == [missing]
    reply = with_choice(message={"role": "assistant", "refusal": None})
    assert faults(reply, ChatCompletion, required={"choices.message.refusal"}) == []


def test_what_the_engine_writes_itself_has_keys_that_the_api_does_not_know() -> None:
    found = faults(json.loads((RECORDED / "chat.json").read_text()), ChatCompletion)
    assert "metrics: ChatCompletion has no such key" in found
    assert "choices.routed_experts: Choice has no such key" in found
