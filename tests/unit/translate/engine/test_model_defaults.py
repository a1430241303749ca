"""The fields that a derived model adds to requests of `/v1`."""

from __future__ import annotations

from typing import Any

import pytest

from vllamad.core.overlay import EMPTY_OVERLAY, Overlay, Turn
from vllamad.translate.engine.model_defaults import add_model_defaults

HI = {"role": "user", "content": "hi"}
MADE = Overlay(
    system="Be kind.",
    parameters={"temperature": 0.1, "stop": ["a"], "num_predict": 5, "repeat_penalty": 1.2, "x": 1},
    messages=(Turn(role="user", content="q"), Turn(role="assistant", content="a")),
)
HISTORY = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SYSTEM = {"role": "system", "content": "Be kind."}


def laid(path: str, overlay: Overlay = MADE, **body: Any) -> dict[str, Any]:
    return add_model_defaults(path, body, overlay, 2048, overlay.parameters)


def test_a_model_that_is_not_derived_adds_nothing() -> None:
    body: dict[str, object] = {"messages": [HI]}
    assert add_model_defaults("/v1/chat/completions", body, EMPTY_OVERLAY, 2048, {}) is body


def test_a_chat_gets_system_history_and_parameters() -> None:
    assert laid("/v1/chat/completions", messages=[HI]) == {
        "messages": [SYSTEM, *HISTORY, HI],
        "temperature": 0.1,
        "stop": ["a"],
        "max_tokens": 5,
        "repetition_penalty": 1.2,
    }


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_clients_system_message_replaces_the_models(role: str) -> None:
    system = {"role": role, "content": "mine"}
    assert laid("/v1/chat/completions", messages=[system, HI])["messages"] == [*HISTORY, system, HI]


def test_fields_of_the_client_win_over_defaults() -> None:
    request = laid("/v1/chat/completions", messages=[HI], temperature=0.9, max_completion_tokens=7)
    assert request["temperature"] == 0.9
    assert "max_tokens" not in request


def test_a_completion_gets_parameters_and_keeps_its_prompt() -> None:
    request = laid("/v1/completions", prompt="x")
    assert request["prompt"] == "x"
    assert request["max_tokens"] == 5
    assert "messages" not in request


def test_responses_get_instructions() -> None:
    request = laid("/v1/responses", input="x")
    assert request == {
        "input": "x", "instructions": "Be kind.", "temperature": 0.1, "max_output_tokens": 5,
    }  # fmt: skip
    assert laid("/v1/responses", input="x", instructions="mine")["instructions"] == "mine"


def test_messages_get_their_system_beside_the_history() -> None:
    request = laid("/v1/messages", messages=[HI], max_tokens=9)
    assert request == {
        "messages": [*HISTORY, HI], "system": "Be kind.", "temperature": 0.1,
        "top_p": 0.9, "top_k": 40, "stop_sequences": ["a"], "max_tokens": 9,
    }  # fmt: skip
    assert laid("/v1/messages", messages=[HI], system="mine")["system"] == "mine"
    counted = laid("/v1/messages/count_tokens", messages=[HI])
    assert counted == {"messages": [*HISTORY, HI], "system": "Be kind."}


def test_without_a_system_only_the_history_is_added() -> None:
    overlay = Overlay(messages=MADE.messages)
    assert laid("/v1/chat/completions", overlay, messages=[HI]) == {"messages": [*HISTORY, HI]}
    assert laid("/v1/completions", overlay, prompt="x") == {"prompt": "x"}


@pytest.mark.case("B1")
def test_a_models_num_ctx_bounds_answers_of_v1_too() -> None:
    small = Overlay(parameters={"num_ctx": 64})
    assert laid("/v1/chat/completions", small, messages=[HI])["max_tokens"] == 640
    assert laid("/v1/responses", small, input="hi")["max_output_tokens"] == 640
    assert laid("/v1/completions", small, prompt="hi", max_tokens=3)["max_tokens"] == 3


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
def test_audio_gets_the_sampling_of_its_model_and_keeps_what_the_client_says(path: str) -> None:
    assert laid(path) == {"temperature": 0.1}
    assert laid(path, temperature="0.9") == {"temperature": "0.9"}
