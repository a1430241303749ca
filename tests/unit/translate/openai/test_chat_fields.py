"""Only the allowed fields of a request reach the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.engine.request_fields import LEFT_OUT
from vllamad.translate.openai import chat_fields
from vllamad.translate.openai.chat_fields import ListedModel, chat_request, completion_request

HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="  # no more than a PNG's first bytes


def chat(fields: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [HI]}
    name, kept = chat_request(json.dumps(body | fields).encode())
    assert name == "m"
    return kept


def refusal_of(decode, body: object) -> str:
    with pytest.raises(BadInput) as refused:
        decode(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert refused.value.status == 400
    return refused.value.message


def test_ordinary_fields_pass_and_the_model_is_left_to_the_caller():
    fields: dict[str, object] = {
        "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
        "max_completion_tokens": 5, "tools": [TOOL], "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "n": 16, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    assert chat(fields) == fields | {"messages": [HI]}


@pytest.mark.parametrize(
    "field",
    ["chat_template", "chat_template_kwargs", "prompt_embeds", "priority", "request_id",
     "vllm_xargs", "kv_transfer_params", "documents", "mm_processor_kwargs", "cache_salt",
     "use_beam_search", "structured_outputs", "keep_alive", "made_up"],
)  # fmt: skip
def test_fields_that_are_not_allowed_are_dropped(field):
    assert chat({field: 1}) == {"messages": [HI]}


@pytest.mark.parametrize("field", ["functions", "function_call", "audio", "web_search_options"])
def test_unsupported_fields_that_change_the_response_are_refused(field):
    body = {"model": "m", "messages": [HI], field: {"name": "f"}}
    assert refusal_of(chat_request, body).startswith(f"{field} is not supported: ")
    assert chat({field: None}) == {"messages": [HI]}


def test_null_fields_and_empty_tools_are_dropped():
    assert chat({"temperature": None, "tools": [], "stream_options": {"include_usage": True}}) == {
        "messages": [HI]
    }


def test_unknown_stream_options_are_dropped():
    kept = chat({"stream": True, "stream_options": {"include_usage": True, "x": 1}})
    assert kept["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "high"),
        ({"reasoning_effort": "low", "reasoning": {}}, "low"),
        ({"reasoning": "high"}, None),
        ({"reasoning_effort": ""}, None),
        ({"reasoning_effort": "none"}, "none"),
        ({"reasoning_effort": "ultra"}, "max"),
    ],
)
def test_reasoning_wins_over_reasoning_effort(fields, effort):
    assert chat(fields).get("reasoning_effort") == effort


@pytest.mark.parametrize("image", [PICTURE, {"url": PICTURE, "detail": "low"}])
def test_inline_pictures_pass(image):
    parts = [{"type": "text", "text": "what", "x": 1}, {"type": "image_url", "image_url": image}]
    kept = chat({"messages": [{"role": "user", "content": parts, "x": 1}]})
    assert kept["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what"},
                {"type": "image_url", "image_url": {"url": PICTURE}},
            ],
        }
    ]


def test_an_assistants_null_content_passes():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [HI, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert chat({"messages": messages})["messages"] == messages


URLS = "image URLs are not currently supported, please use base64 encoded data instead"

BAD = "invalid image input"
NOT_BASE64 = "illegal base64 data at input byte 8"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url", "image_url": {"url": "http://x/y.png"}}, URLS),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, URLS),
        ({"type": "image_url", "image_url": {"url": "data:video/mp4;base64,aGk="}}, BAD),
        ({"type": "image_url", "image_url": {"url": "data:image/png,aGk="}}, BAD),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,UklGRgAAAABXQVZF"}},
            BAD,
        ),
        ({"type": "image_url", "image_url": {"url": PICTURE[:-1]}}, NOT_BASE64),
        ({"type": "image_url", "image_url": {"url": 1}}, BAD),
        ({"type": "image_url"}, BAD),
        ({"type": "video_url", "video_url": {"url": "http://x"}}, "invalid message format"),
        ({"image_url": "http://x"}, "invalid message format"),
        ("text", "invalid message format"),
    ],
)
def test_urls_and_unknown_parts_are_refused(part, message):
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    assert refusal_of(chat_request, body) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b"{", "unexpected EOF"),
        ([], "json: cannot unmarshal array into Go value of type openai.ChatCompletionRequest"),
        ({"model": 1}, "json: cannot unmarshal number into Go struct field "
         "ChatCompletionRequest.model of type string"),
        ({}, "model is required"),
        ({"model": "m"}, "[] is too short - 'messages'"),
        ({"model": "m", "messages": []}, "[] is too short - 'messages'"),
        ({"model": "m", "messages": [1]}, "json: cannot unmarshal number into Go struct field "
         "ChatCompletionRequest.messages of type openai.Message"),
        ({"model": "m", "messages": [{"content": 1}]}, "invalid message content type: float64"),
        ({"model": "m", "messages": [HI] * 10_001}, "cannot take 10001 messages, at most 10000"),
        ({"model": "m", "messages": [HI], "tools": [{}] * 513},
         "cannot take 513 tools, at most 512"),
        ({"model": "m", "messages": [HI], "reasoning_effort": "bogus"},
         'invalid reasoning value: "bogus" (must be "minimal", "low", "medium", "high", "xhigh", '
         '"ultra", "max", or "none")'),
        ({"model": "m", "messages": [HI], "stream": 1}, "json: cannot unmarshal number into Go "
         "struct field ChatCompletionRequest.stream of type bool"),
        ({"model": "m", "messages": [HI], "n": 17}, "n must be between 1 and 16"),
        ({"model": "m", "messages": [HI], "tools": [{"x": "y" * 70_000}]},
         "invalid tool: the schema has 70008 bytes, at most 65536"),
        ({"model": "m", "messages": [HI], "response_format": {"type": "structural_tag"}},
         'response_format: type "structural_tag" is not supported'),
        ({"model": "m", "messages": [HI], "response_format": {
            "type": "json_schema", "json_schema": {"schema": {"type": "zzz"}}}},
         'invalid response_format: unknown type "zzz" at the top'),
        ({"model": "m", "messages": [HI], "n": 0}, "n must be between 1 and 16"),
        ({"model": "m", "messages": [HI], "top_logprobs": 21},
         "top_logprobs must be between 0 and 20"),
    ],
)  # fmt: skip
def test_a_bad_chat_request_is_refused(body, message):
    assert refusal_of(chat_request, body) == message


@pytest.mark.parametrize("role", [None, "", "zzz", "Developer"])
def test_any_role_passes(role):
    [message] = chat({"messages": [{"role": role, "content": "x"}]})["messages"]
    assert message == {"role": (role or "").lower(), "content": "x"}


def wrong(name: str, kind: str, go: str, struct: str = "ChatCompletionRequest") -> str:
    return f"json: cannot unmarshal {kind} into Go struct field {struct}.{name} of type {go}"


@pytest.mark.case("B6")
@pytest.mark.parametrize(
    ("field", "value", "kind", "go"),
    [
        ("temperature", "x", "string", "float64"),
        ("temperature", True, "bool", "float64"),
        ("top_p", [], "array", "float64"),
        ("presence_penalty", {}, "object", "float64"),
        ("max_tokens", True, "bool", "int"),
        ("max_tokens", 1.5, "number 1.5", "int"),
        ("max_completion_tokens", "5", "string", "int"),
        ("seed", "x", "string", "int"),
        ("n", "9", "string", "int"),
        ("n", True, "bool", "int"),
        ("logprobs", 1, "number", "bool"),
        ("top_logprobs", "1", "string", "int"),
        ("stream_options", 1, "number", "openai.StreamOptions"),
        ("response_format", "json", "string", "openai.ResponseFormat"),
        ("logit_bias", [], "array", "map[string]float64"),
        ("logit_bias", {"1": "x"}, "string", "float64"),
        ("stop_token_ids", 1, "number", "[]int"),
        ("stop_token_ids", ["x"], "string", "int"),
        ("tools", {"a": 1}, "object", "[]api.Tool"),
        ("tools", [1], "number", "api.Tool"),
        ("messages", "hi", "string", "[]openai.Message"),
    ],
)
def test_a_wrong_type_is_refused_with_ollamas_text(field, value, kind, go):
    body = {"model": "m", "messages": [HI], field: value}
    assert refusal_of(chat_request, body) == wrong(field, kind, go)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"role": 1}, wrong("messages.role", "number", "string")),
        ({"name": []}, wrong("messages.name", "array", "string")),
        ({"tool_calls": [{"function": {"arguments": 1}}]}, "invalid tool call arguments"),
        ({"content": True}, "invalid message content type: bool"),
        ({"content": {}}, "invalid message content type: map[string]interface {}"),
        ({"content": [{"type": "text", "text": 1}]}, "invalid message format"),
        ({"content": [{"type": "input_audio"}]}, "invalid input_audio format"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "UklG", "format": "a;b"}}]},
         "invalid input_audio format"),
        ({"content": [{"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}]},
         "illegal base64 data at input byte 0"),
    ],
)  # fmt: skip
def test_a_bad_message_is_refused_with_our_text(fields, message):
    body = {"model": "m", "messages": [{"role": "user"} | fields]}
    assert refusal_of(chat_request, body) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": 5}, "invalid type for 'stop' field: float64"),
        ({"stop": [True, "x"]}, "invalid type for 'stop' field: bool"),
        ({"stop": [["x"]]}, "invalid type for 'stop' field: []interface {}"),
        ({"stop": [{}]}, "invalid type for 'stop' field: map[string]interface {}"),
        ({"stop": 0}, "invalid type for 'stop' field: float64"),
        ({"logit_bias": {"x": 1}}, 'logit_bias: "x" is no token id'),
        ({"tools": [{"type": "function"}]}, "cannot take a tool without function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]},
         wrong("tools.function.parameters", "array", "api.ToolFunctionParameters")),
        ({"tools": [TOOL], "tool_choice": "x"},
         'invalid tool_choice: "x" (must be "none", "auto", "required", or a function)'),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
         'tool_choice: the function "g" is not in tools'),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
         "tool_choice: none of the allowed tools is in tools"),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused_with_our_text(fields, message):
    assert refusal_of(chat_request, {"model": "m", "messages": [HI]} | fields) == message


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"stop": ["", "x", None]}, {"stop": ["x"]}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ""}, {}),
        ({"seed": -7}, {}),
        ({"seed": 2**70}, {"seed": 2**63 - 1}),
        ({"max_tokens": 5.0}, {"max_tokens": 5}),
        ({"top_k": -5}, {"top_k": 0}),
        ({"top_p": 0, "temperature": 1}, {"top_p": 1.0, "temperature": 0.0}),
        ({"temperature": 3, "top_p": 7, "min_p": -1},
         {"temperature": 2.0, "top_p": 1.0, "min_p": 0.0}),
        ({"frequency_penalty": 3, "presence_penalty": -3, "repetition_penalty": 0},
         {"frequency_penalty": 2.0, "presence_penalty": -2.0, "repetition_penalty": 1.0}),
        ({"user": 5, "store": 1, "metadata": []}, {}),
        ({"top_logprobs": 3}, {}),
        ({"logprobs": False, "top_logprobs": 3}, {"logprobs": False}),
        ({"stream_options": {"include_usage": True}, "stream": False}, {"stream": False}),
        ({"response_format": {"type": "text"}}, {}),
        ({"stop_token_ids": [1, None, 2.0]}, {"stop_token_ids": [1, 2]}),
        ({"logit_bias": {"5": 1}}, {"logit_bias": {"5": 1}}),
        ({"response_format": {"TYPE": "json_object", "x": 1}},
         {"response_format": {"type": "json_object"}}),
        ({"response_format": {"type": "json_schema"}},
         {"response_format": {"type": "json_object"}}),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "strict": True, "schema": {"type": "string", "format": "made-up"}}}},
         {"response_format": {"type": "json_schema", "json_schema": {
             "name": "schema", "schema": {"type": "string"}}}}),
    ],
)  # fmt: skip
@pytest.mark.case("F6")
def test_numbers_are_clamped_and_unknown_values_left_out(sent, kept):
    assert chat(sent) == kept | {"messages": [HI]}


@pytest.mark.case("F4", "B4")
@pytest.mark.parametrize("tools", [None, [], [{"type": "web_search"}]])
@pytest.mark.parametrize("choice", ["auto", "required", "x", {"type": "function"}, 5])
def test_fields_that_need_tools_are_removed_without_tools(tools, choice):
    request = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
    left_out = {LEFT_OUT: ["web_search"]} if tools else {}
    assert chat(request) == {"messages": [HI]} | left_out


NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", "none"),
        ("any", "required"),
        ({"type": "auto"}, "auto"),
        (NAMED | {"x": 1}, NAMED),
        ({"type": "function", "name": "f"}, NAMED),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
         "required"),
    ],
)  # fmt: skip
def test_a_tool_choice_gets_the_engines_form(choice, sent):
    other = {"type": "function", "function": {"name": "g", "strict": True, "x": 1}}
    kept = chat({"tools": [TOOL, {"type": "web_search"}, other], "tool_choice": choice})
    assert kept["tool_choice"] == sent
    few = sent == "required" and choice != "any"
    assert [tool["function"]["name"] for tool in kept["tools"]] == (["f"] if few else ["f", "g"])
    assert few or kept["tools"][1]["function"] == {"name": "g", "strict": True}


def test_a_choice_of_a_hosted_tool_is_removed():
    kept = chat({"tools": [TOOL, {"type": "web_search"}], "tool_choice": {"type": "web_search"}})
    assert kept == {"messages": [HI], "tools": [TOOL], LEFT_OUT: ["web_search"]}


@pytest.mark.case("B9")
def test_keys_match_in_any_case_and_the_last_wins():
    body = {
        "MODEL": "m",
        "Messages": [{"ROLE": "user", "Content": [{"TYPE": "text", "Text": "x"}]}],
        "temperature": 0.5,
        "Temperature": 0.25,
        "TEMPERATURE": None,
        "STREAM": True,
        "Stream_Options": {"Include_Usage": True},
        "Tools": [{"Type": "function", "Function": {"Name": "f", "Parameters": {"X": 1}}}],
    }
    name, kept = chat_request(json.dumps(body).encode())
    assert name == "m"
    assert kept == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "temperature": 0.25,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"X": 1}}}],
    }


def test_a_message_of_a_response_can_be_sent_back():
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    message = {
        "role": "assistant",
        "content": None,
        "refusal": "no",
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [call],
        "reasoning": "hm",
    }
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    parts = [{"type": "refusal", "refusal": "no"}, sound]
    assert chat({"messages": [message, {"role": "user", "content": parts}]})["messages"] == [
        {
            "role": "assistant",
            "content": "no",
            "reasoning": "hm",
            "tool_calls": [
                {
                    "id": "",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a":1}'},
                }
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "no"}, parts[1]]},
    ]


ALL = (
    *chat_fields._CHAT,
    *chat_fields._COMPLETION,
    "reasoning",
    "user",
    "functions",
    "audio",
    "store",
)


@pytest.mark.parametrize("field", sorted({*ALL} - {"messages", "prompt"}))
def test_null_counts_as_absent(field):
    assert chat({field: None}) == {"messages": [HI]}
    body = json.dumps({"model": "m", "prompt": "x", field: None}).encode()
    assert completion_request(body) == ("m", {"prompt": "x"})


@pytest.mark.parametrize(
    "prompt", ["x", ["x", "y"], [1, 2, 3] * 50, [[1, 2], [3]], ["x"] * chat_fields.MAX_PROMPTS]
)
def test_a_completion_keeps_its_prompt(prompt):
    body = {"model": "m", "prompt": prompt, "logprobs": 5, "prompt_embeds": "x", "tools": []}
    assert completion_request(json.dumps(body).encode()) == (
        "m",
        {"prompt": prompt, "logprobs": 5},
    )


MIXED = "prompt must be a text, a list of texts, or token ids"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ["x"] * 17}, "cannot take 17 prompts, at most 16"),
        ({"logprobs": 21}, "logprobs must be between 0 and 20"),
        ({"logprobs": True}, wrong("logprobs", "bool", "int", "CompletionRequest")),
        ({"temperature": "x"}, wrong("temperature", "string", "float32", "CompletionRequest")),
        ({"prompt": 5}, wrong("prompt", "number", "string", "CompletionRequest")),
        ({"prompt": ["x", 5]}, MIXED),
        ({"prompt": [[1], "x"]}, MIXED),
        ({"prompt": [1, True]}, MIXED),
        ({"prompt": [[1, -5]]}, "prompt has a token id below zero: -5"),
        ({"prompt": ""}, "prompt is required"),
        ({"prompt": []}, "prompt is required"),
        ({"prompt": None}, "prompt is required"),
    ],
)
def test_the_limits_of_a_completion_are_checked(fields, message):
    assert refusal_of(completion_request, {"model": "m"} | fields) == message


@pytest.mark.parametrize("decode", [chat_request, completion_request])
@accepts_some
@example(body=json.dumps({"model": "m", "prompt": "hi", "messages": [HI]}).encode())
@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_but_bad_input(decode, body):
    with accepted_or_refused():
        decode(body)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "image_url", "url", "effort"]), inner
        )
    ),
)
FIELDS = st.sampled_from(["model", "messages", "n", "logprobs", "stream_options", "reasoning"])


@accepts_some
@example(body={"messages": [HI]})
@given(st.dictionaries(FIELDS, ANY))
def test_no_json_raises_anything_but_bad_input(body):
    for decode in (chat_request, completion_request):
        with accepted_or_refused():
            decode(json.dumps({"model": "m"} | body).encode())


def test_models_are_listed_as_openai_lists_them():
    entry = ListedModel(id="test:latest", created=7)
    assert chat_fields.encode_model(entry) == (
        b'{"id":"test:latest","object":"model","created":7,"owned_by":"library"}\n'
    )
    assert chat_fields.encode_model_list([entry]) == (
        b'{"object":"list","data":[' + chat_fields.encode_model(entry).strip() + b"]}\n"
    )
    assert chat_fields.encode_model_list([]) == b'{"object":"list","data":[]}\n'
