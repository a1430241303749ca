"""Request bodies are taken and refused as Ollama does, with its words."""

from __future__ import annotations

import json
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.content.images import Image
from vllamad.translate.ollama.request import (
    ChatRequest,
    GenerateRequest,
    KeepAlive,
    Message,
    PastFunctionCall,
    PastToolCall,
    decode_chat,
    decode_generate,
    decode_show,
)

LEVELS = '"high", "medium", "low", "max", true, or false'


def refusal_of(decode, body: object) -> str:
    with pytest.raises(BadInput) as refused:
        decode(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize("decode", [decode_generate, decode_chat, decode_show])
@accepts_some
@example(body=b'{"model": "m"}')
@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_but_bad_input(decode, body):
    with accepted_or_refused():
        decode(body)


KEYS = st.sampled_from(
    ["model", "MESSAGES", "messages", "stream", "format", "keep_alive", "options", "think", "tools",
     "images", "context", "raw", "top_logprobs", "role", "content", "tool_calls", "function",
     "arguments", "name", "id"],
)  # fmt: skip
REQUESTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@pytest.mark.parametrize("decode", [decode_generate, decode_chat, decode_show])
@accepts_some
@example(value={"model": "m"})
@given(st.dictionaries(KEYS, REQUESTS))
def test_no_json_raises_anything_but_bad_input(decode, value):
    with accepted_or_refused():
        decode(json.dumps(value).encode())


@pytest.mark.parametrize("decode", [decode_generate, decode_chat, decode_show])
def test_a_body_must_be_there_and_whole(decode):
    assert refusal_of(decode, b"") == "missing request body"
    assert refusal_of(decode, b"{") == "unexpected EOF"


@pytest.mark.parametrize(
    ("decode", "body", "kind", "where", "go_type"),
    [
        (decode_generate, {"model": 1}, "number", "GenerateRequest.model", "string"),
        (decode_show, {"model": {}}, "object", "ShowRequest.model", "string"),
        (decode_chat, {"messages": [{"content": []}]}, "array", "ChatRequest.messages.content",
         "string"),
        (decode_chat, {"messages": [1]}, "number", "ChatRequest.messages", "api.Message"),
        (decode_chat, {"messages": {}}, "object", "ChatRequest.messages", "[]api.Message"),
        (decode_chat, {"tools": {}}, "object", "ChatRequest.tools", "api.Tools"),
        (decode_chat, {"stream": "yes"}, "string", "ChatRequest.stream", "bool"),
        (decode_chat, {"options": []}, "array", "ChatRequest.options", "map[string]interface {}"),
        (decode_chat, {"top_logprobs": 1.5}, "number 1.5", "ChatRequest.top_logprobs", "int"),
        (decode_chat, {"top_logprobs": True}, "bool", "ChatRequest.top_logprobs", "int"),
        (decode_generate, {"context": [1, "x"]}, "string", "GenerateRequest.context", "int"),
        (decode_generate, {"images": "a"}, "string", "GenerateRequest.images", "[]api.ImageData"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_with_gos_words(decode, body, kind, where, go_type):
    expected = f"json: cannot unmarshal {kind} into Go struct field {where} of type {go_type}"
    assert refusal_of(decode, body) == expected


@pytest.mark.parametrize(
    ("decode", "body", "message"),
    [
        (decode_generate, [], "array into Go value of type api.GenerateRequest"),
        (decode_chat, "x", "string into Go value of type api.ChatRequest"),
    ],
)
def test_a_body_that_is_no_object_is_refused_with_gos_words(decode, body, message):
    assert refusal_of(decode, body) == f"json: cannot unmarshal {message}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("top_logprobs", -1, "top_logprobs must be between 0 and 20"),
        ("top_logprobs", 21, "top_logprobs must be between 0 and 20"),
        ("keep_alive", "5", 'time: missing unit in duration "5"'),
        ("keep_alive", "1d", 'time: unknown unit "d" in duration "1d"'),
        ("keep_alive", True, "Unsupported type: 'bool'"),
        ("think", "yes", f'invalid think value: "yes" (must be {LEVELS})'),
        ("think", "", f'invalid think value: "" (must be {LEVELS})'),
        ("think", 1, f"think must be a boolean or string ({LEVELS})"),
        ("think", [], f"think must be a boolean or string ({LEVELS})"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("decode", [decode_generate, decode_chat])
def test_a_bad_value_is_refused_with_ollamas_words(decode, field, value, message):
    assert refusal_of(decode, {"model": "nope", field: value}) == message


def test_a_data_uri_is_no_base64():
    body = {"model": "test", "prompt": "x", "images": ["data:image/png;base64,aGk="]}
    assert refusal_of(decode_generate, body) == "illegal base64 data at input byte 4"


def test_tool_arguments_as_a_string_are_refused():
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    body = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    expected = "Value looks like object, but can't find closing '}' symbol"
    assert refusal_of(decode_chat, body) == expected


def test_a_tool_must_be_an_object():
    assert refusal_of(decode_chat, {"tools": ["f"]}) == (
        "cannot take a tool that is not an object in ChatRequest.tools"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [{}] * 10_001}, "cannot take 10001 messages, at most 10000"),
        ({"tools": [{}] * 513}, "cannot take 513 tools, at most 512"),
        ({"messages": [{"images": [""] * 33}]}, "cannot take 33 messages.images, at most 32"),
    ],
)
def test_lists_have_a_largest_length(body, message):
    assert refusal_of(decode_chat, body) == message


def test_null_is_a_body_with_no_fields():
    assert decode_generate(b"null") == GenerateRequest()
    assert decode_chat(b"null") == ChatRequest()


def test_keys_match_in_any_case_and_junk_after_the_body_is_ignored():
    assert decode_generate(b'{"MODEL":"test","unknown":1} trailing').model == "test"


@pytest.mark.parametrize("think", [True, False, "low"])
@pytest.mark.parametrize("key", ["think", "THINK"])
def test_think_is_a_switch_or_a_level(key: str, think: bool | str):
    assert decode_chat(json.dumps({key: think}).encode()).think == think


def test_null_fields_are_absent():
    body = dict.fromkeys(
        ["model", "messages", "stream", "keep_alive", "format", "options", "think"]
    )
    assert decode_chat(json.dumps(body).encode()) == ChatRequest()


def test_null_elements_are_absent():
    assert decode_chat(b'{"messages":[null,{"content":null,"role":"USER"}]}').messages == [
        Message(role="user")
    ]


def test_neutral_values_change_nothing():
    body: dict[str, object] = {"model": "m", "think": False, "context": [], "images": []}
    body |= {"suffix": "", "system": "", "template": "", "format": None, "options": {}}
    assert decode_generate(json.dumps(body).encode()) == GenerateRequest(model="m", think=False)


def test_a_chat_is_read_whole():
    body = {
        "model": "m",
        "messages": [
            {"role": "User", "content": "hi", "images": ["aGk="]},
            {"role": "assistant", "thinking": "hm", "tool_calls": [
                {"id": "1", "type": "function",
                 "function": {"name": "f", "arguments": {"b": 1, "a": 2}}},
                {"function": {"name": "g", "arguments": None}}, {},
            ]},
            {"role": "tool", "content": "3", "tool_name": "f", "tool_call_id": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "stream": False,
        "keep_alive": -1,
        "think": "max",
        "logprobs": True,
        "top_logprobs": 20,
        "truncate": False,
        "_debug_render_only": True,
    }  # fmt: skip
    assert decode_chat(json.dumps(body).encode()) == ChatRequest(
        model="m",
        messages=[
            Message(role="user", content="hi", images=[Image("image/jpeg", "aGk=")]),
            Message(
                role="assistant",
                thinking="hm",
                tool_calls=[
                    PastToolCall(
                        id="1", function=PastFunctionCall(name="f", arguments={"b": 1, "a": 2})
                    ),
                    PastToolCall(function=PastFunctionCall(name="g")),
                    PastToolCall(),
                ],
            ),
            Message(role="tool", content="3", tool_name="f", tool_call_id="1"),
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
        stream=False,
        keep_alive=KeepAlive(inf),
        think="max",
        logprobs=True,
        top_logprobs=20,
        truncate=False,
        debug_render_only=True,
    )


@pytest.mark.parametrize(
    ("decode", "body", "empty", "unload"),
    [
        (decode_generate, {"model": "m"}, True, False),
        (decode_generate, {"model": "m", "keep_alive": 0}, True, True),
        (decode_generate, {"model": "m", "keep_alive": "0s"}, True, True),
        (decode_generate, {"model": "m", "prompt": "x", "keep_alive": 0.0}, False, False),
        (decode_chat, {"model": "m", "messages": []}, True, False),
        (decode_chat, {"model": "m", "keep_alive": 0}, True, True),
        (decode_chat, {"model": "m", "messages": [{}], "keep_alive": 0}, False, False),
    ],
)
def test_an_empty_request_only_loads_or_unloads(decode, body, empty, unload):
    request = decode(json.dumps(body).encode())
    assert (request.is_empty, request.wants_unload) == (empty, unload)


@pytest.mark.parametrize("body", [b'{"model":"x"}', b'{"model":"","name":"x"}', b'{"name":"x"}'])
def test_show_takes_the_older_name_too(body):
    assert decode_show(body).model == "x"
