"""An Ollama request becomes one engine call, built key by key."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from vllamad.errors import BadInput, EngineRefused, NotSupported, VllamadError
from vllamad.translate.content.fill_in_middle import FimTokens
from vllamad.translate.ollama.request import Message, decode_chat, decode_generate
from vllamad.translate.ollama.to_engine import (
    EngineCall,
    ModelTraits,
    chat_call,
    check,
    generate_call,
)

FULL = "registry.ollama.ai/library/test:latest"
TEST = ModelTraits(full_name=FULL, capabilities=frozenset({"completion"}))
THINK = ModelTraits(full_name=FULL, capabilities=frozenset({"completion", "thinking"}))
BERT = ModelTraits(full_name=FULL, capabilities=frozenset({"embedding"}))
ALL = ModelTraits(
    full_name=FULL,
    capabilities=frozenset({"completion", "tools", "vision", "audio", "thinking"}),
)
PNG = "iVBORw0KGgo="
WAV = "UklGRgAAAABXQVZF"


def chat(body: dict[str, Any], traits: ModelTraits = TEST) -> dict[str, Any]:
    request = decode_chat(json.dumps({"model": "test"} | body).encode())
    check(request, traits)
    call = chat_call(request, traits, served_name="served", context_length=2048)
    assert call.path == "/v1/chat/completions"
    assert msgspec.json.decode(call.encode()) == call.body
    return call.body


def generate(body: dict[str, Any], traits: ModelTraits = TEST) -> EngineCall:
    request = decode_generate(json.dumps({"model": "test"} | body).encode())
    check(request, traits)
    return generate_call(request, traits, served_name="served", context_length=2048)


def refusal_of(ask, body: dict[str, Any], traits: ModelTraits) -> VllamadError:
    with pytest.raises(VllamadError) as refused:
        ask(body, traits)
    return refused.value


HI = {"role": "user", "content": "hi"}


def test_a_chat_is_always_streamed_with_usage_and_explicit_sampling():
    body = chat({"messages": [HI], "stream": False, "options": {"seed": 7}})
    assert body == {
        "model": "served",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 2048,
        "seed": 7,
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([HI], ["system", "user", "user"]),
        ([{"role": "system", "content": "mine"}, HI], ["user", "system", "user"]),
    ],
)
def test_the_models_system_is_added_unless_the_client_begins_with_one(messages, roles):
    history = [Message(role="user", content="old")]
    traits = msgspec.structs.replace(TEST, system="be brief", history=history)
    assert [m["role"] for m in chat({"messages": messages}, traits)["messages"]] == roles


def test_a_trailing_assistant_message_is_continued():
    body = chat({"messages": [HI, {"role": "assistant", "content": "The"}]})
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_a_trailing_tool_call_is_not_continued():
    call = {"function": {"name": "f"}}
    body = chat({"messages": [HI, {"role": "assistant", "content": "x", "tool_calls": [call]}]})
    assert "continue_final_message" not in body


def test_tools_go_through_unmodified():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"default": 1}}}]
    assert chat({"messages": [HI], "tools": tools}, ALL)["tools"] == tools
    assert "tools" not in chat({"messages": [HI], "tools": []})


@pytest.mark.parametrize(
    ("think", "wanted", "effort"),
    [(None, True, None), (True, True, None), (False, False, None), ("low", True, "low")],
)
def test_a_thinking_model_thinks_unless_told_not_to(think, wanted, effort):
    body = chat({"messages": [HI], "think": think}, THINK)
    assert body["chat_template_kwargs"] == {"enable_thinking": wanted, "thinking": wanted}
    assert body.get("reasoning_effort") == effort


FIM = FimTokens(before="<P>", after="<S>", middle="<M>", ends=(7, 8))
CODER = msgspec.structs.replace(TEST, fim=FIM)


def test_a_suffix_is_filled_in_before_with_the_models_own_tokens():
    call = generate(
        {"prompt": "def f(", "suffix": "return 1", "system": "s", "logprobs": True}, CODER
    )
    assert call.path == "/v1/completions"
    assert call.body["prompt"] == "<P>def f(<S>return 1<M>"
    assert call.body["stop_token_ids"] == [7, 8]
    assert call.body["logprobs"] == 1
    assert call.body["return_token_ids"] is True


def test_raw_is_raw_even_with_a_suffix():
    call = generate({"prompt": "def f(", "suffix": "return 1", "raw": True}, CODER)
    assert call.body["prompt"] == "def f("
    assert not {"stop_token_ids", "return_token_ids"} & call.body.keys()


def test_a_conversation_goes_on_from_token_ids_without_what_only_chat_has():
    body = {"model": "test", "prompt": "x", "logprobs": True, "top_logprobs": 3, "context": [1]}
    request = decode_generate(json.dumps(body).encode())
    call = generate_call(request, THINK, served_name="served", context_length=2048)
    assert call.body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    ongoing = call.continue_from_tokens([1, 2, 3], request)
    assert ongoing.path == "/v1/completions"
    assert ongoing.body["prompt"] == [1, 2, 3]
    assert ongoing.body["logprobs"] == 3
    kept = call.body.keys() - {"chat_template_kwargs", "messages", "top_logprobs"}
    assert ongoing.body.keys() == kept | {"prompt"}


@pytest.mark.parametrize(
    ("body", "traits", "what"),
    [
        ({"images": [PNG]}, ALL, "images"),
        ({"think": True}, THINK, "thinking"),
        ({}, msgspec.structs.replace(THINK, always_thinks=True), "thinking"),
    ],
)
def test_what_token_ids_cannot_be_followed_by_is_refused(body, traits, what):
    refused = refusal_of(generate, {"prompt": "x", "context": [1], **body}, traits)
    assert refused.message == f"context does not support {what}; use /api/chat"
    with_suffix = {"prompt": "x", "context": [1], "suffix": "y", **body}
    coder = msgspec.structs.replace(traits, fim=FIM)
    assert generate(with_suffix, coder).body["prompt"] == "<P>x<S>y<M>"


def test_a_token_id_below_zero_is_refused():
    refused = refusal_of(generate, {"prompt": "x", "context": [3, -1]}, TEST)
    assert refused.message == "context has a token id below zero: -1"


@pytest.mark.parametrize(
    ("body", "message", "blamed"),
    [
        ({"response_format": {}}, "Internal server error", True),
        ({"messages": []}, "Internal server error", False),
        ({"response_format": {}}, "EngineCore encountered an issue", False),
    ],
)
def test_what_only_the_engines_second_look_at_a_grammar_finds_is_the_requests_fault(
    body, message, blamed
):
    error = EngineRefused(message, status=500)
    fault = EngineCall(path="/v1/chat/completions", body=body).blamed_for(error)
    assert (fault is not None) == blamed
    if fault is not None:
        assert fault.message == "invalid format: the engine cannot build a grammar of it"


@pytest.mark.parametrize(
    ("ask", "body"),
    [
        (chat, {"messages": [HI], "format": {"type": "x"}}),
        (chat, {"messages": [HI], "tools": [{"function": {"description": "x" * 65536}}]}),
        (generate, {"prompt": "x", "format": {"pattern": "["}}),
    ],
)
def test_a_bad_schema_is_refused_with_its_reason(ask, body):
    refused = refusal_of(ask, body, ALL)
    assert isinstance(refused, BadInput)
    assert refused.status == 400
    assert refused.message.startswith(("invalid format: ", "invalid tool: "))


@pytest.mark.parametrize(
    ("think", "effort"),
    [(None, None), (False, None), (True, None), ("low", "low"), ("max", "high")],
)
def test_where_there_is_no_switch_nobody_is_told_of_one(think, effort):
    """A parser that hears of it would take the thought for the answer."""
    always = msgspec.structs.replace(THINK, always_thinks=True)
    body = chat({"messages": [HI], "think": think}, always)
    assert "chat_template_kwargs" not in body
    assert body.get("reasoning_effort") == effort


def test_other_models_get_no_thinking_switch():
    assert "chat_template_kwargs" not in chat({"messages": [HI], "think": False})


@pytest.mark.parametrize(
    ("form", "response_format"),
    [
        (None, None),
        ("", None),
        ("json", {"type": "json_object"}),
        (
            {"type": "object"},
            {
                "type": "json_schema",
                "json_schema": {"name": "schema", "schema": {"type": "object"}},
            },
        ),
    ],
)
def test_a_format_becomes_a_response_format(form, response_format):
    assert chat({"messages": [HI], "format": form}).get("response_format") == response_format


@pytest.mark.parametrize(
    ("form", "printed"),
    [("xml", r'"\"xml\""'), ([1], '"[1]"'), (True, '"true"')],
)
def test_a_bad_format_is_a_500_as_in_ollama(form, printed):
    error = refusal_of(chat, {"messages": [HI], "format": form}, TEST)
    expected = f'invalid format: {printed}; expected "json" or a valid JSON Schema object'
    assert isinstance(error, BadInput)
    assert (error.message, error.status) == (expected, 500)


def test_a_bad_format_does_not_stop_a_load():
    check(decode_chat(b'{"model":"test","format":"xml"}'), TEST)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {}),
        ({"top_logprobs": 3}, {}),
        ({"logprobs": True}, {"logprobs": True}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ],
)
def test_logprobs_are_requested_only_together(options, fields):
    body = chat({"messages": [HI]} | options)
    assert {k: v for k, v in body.items() if "logprobs" in k} == fields


def test_images_become_data_uris_after_the_text():
    body = chat({"messages": [{"role": "user", "content": "what", "images": [PNG, WAV]}]}, ALL)
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
    ]


@pytest.mark.parametrize(("data", "kind"), [(PNG, "image"), (WAV, "audio")])
@pytest.mark.parametrize("ask", [chat, generate])
def test_a_model_without_eyes_or_ears_gets_no_image_or_sound(ask, data, kind):
    body = {"prompt": "x", "images": [data], "messages": [{"role": "user", "images": [data]}]}
    error = refusal_of(ask, body, TEST)
    assert isinstance(error, NotSupported)
    assert error.message == f"this model does not support {kind} input"


@pytest.mark.parametrize(
    ("ask", "body", "traits", "message"),
    [
        (chat, {}, BERT, '"test" does not support chat'),
        (generate, {}, BERT, '"test" does not support generate'),
        (chat, {"think": True}, BERT, '"test" does not support thinking'),
        (generate, {"think": "low"}, TEST, '"test" does not support thinking'),
        (generate, {"prompt": "a", "suffix": "c"}, TEST, f"{FULL} does not support insert"),
        (chat, {"messages": [HI], "tools": [{}]}, TEST, f"{FULL} does not support tools"),
        (generate, {"raw": True, "system": "x"}, BERT,
         "raw mode does not support template, system, or context"),
        (generate, {"raw": True, "context": [1]}, BERT,
         "raw mode does not support template, system, or context"),
        (generate, {"raw": True, "prompt": "x", "images": [PNG]}, ALL,
         "raw mode does not support images"),
        (generate, {"template": "{{ .Prompt }}"}, TEST, "template override is not supported"),
        (chat, {"options": {"temperature": "0.5"}}, TEST,
         'option "temperature" must be of type float32'),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_is_refused_with_ollamas_words(ask, body, traits, message):
    assert refusal_of(ask, body, traits).message == message


def test_generate_is_a_chat_of_system_history_and_prompt():
    history = [Message(role="user", content="old"), Message(role="assistant", content="new")]
    traits = msgspec.structs.replace(TEST, system="be brief", history=history)
    call = generate({"prompt": "x", "logprobs": True}, traits)
    assert call.path == "/v1/chat/completions"
    assert call.body["logprobs"] is True
    assert call.body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "new"},
        {"role": "user", "content": "x"},
    ]


def test_generates_own_system_wins_and_context_leaves_history_out():
    history = [Message(role="user", content="old")]
    traits = msgspec.structs.replace(TEST, system="be brief", history=history)
    assert generate({"prompt": "x", "system": "mine", "context": [1]}, traits).body["messages"] == [
        {"role": "system", "content": "mine"},
        {"role": "user", "content": "x"},
    ]


def test_a_plain_generate_is_one_user_message():
    messages: Any = generate({"prompt": "x", "images": [PNG]}, ALL).body["messages"]
    assert [message["role"] for message in messages] == ["user"]
    assert messages[0]["content"][1]["type"] == "image_url"


@pytest.mark.parametrize(
    ("options", "logprobs"),
    [({}, None), ({"logprobs": True}, 1), ({"logprobs": True, "top_logprobs": 4}, 4)],
)
def test_raw_is_a_completion_of_the_prompt_as_it_is(options, logprobs):
    call = generate({"prompt": "<|x|>", "raw": True, "format": "json"} | options)
    assert call.path == "/v1/completions"
    assert call.body["prompt"] == "<|x|>"
    assert call.body["max_tokens"] == 2048
    assert call.body["response_format"] == {"type": "json_object"}
    assert call.body.get("logprobs") == logprobs
    assert "messages" not in call.body


def test_keep_alive_and_other_words_for_us_are_not_sent():
    body = chat({"messages": [HI], "keep_alive": "5m", "truncate": False, "chat_template": "x"})
    assert not {"keep_alive", "truncate", "chat_template", "options"} & body.keys()
    assert not any(value is math.inf for value in body.values())
