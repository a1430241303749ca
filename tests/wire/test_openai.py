"""Only what is allowed reaches the engine."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import BadInput
from vllamad.wire import openai
from vllamad.wire.openai import ListedModel, chat_request, completion_request

HI = {"role": "user", "content": "hi"}
PICTURE = "data:image/png;base64,iVBORw0KGgo="  # no more than a PNG's first bytes


def chat(fields: dict[str, object]) -> dict[str, object]:
    body: dict[str, object] = {"model": "m", "messages": [HI]}
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
        "max_completion_tokens": 5, "tools": [{"type": "function"}], "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "n": 16, "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    assert chat(fields) == fields | {"messages": [HI]}


@pytest.mark.parametrize(
    "field",
    ["chat_template", "chat_template_kwargs", "prompt_embeds", "priority", "request_id",
     "vllm_xargs", "kv_transfer_params", "documents", "mm_processor_kwargs", "cache_salt",
     "use_beam_search", "structured_outputs", "keep_alive", "made_up"],
)  # fmt: skip
def test_what_could_hurt_or_means_nothing_is_dropped(field):
    assert chat({field: 1}) == {"messages": [HI]}


@pytest.mark.parametrize("field", ["functions", "function_call", "audio", "web_search_options"])
def test_what_would_change_the_answer_is_not_dropped_but_refused(field):
    body = {"model": "m", "messages": [HI], field: {"name": "f"}}
    assert refusal_of(chat_request, body).startswith(f"{field} is not supported: ")
    assert chat({field: None}) == {"messages": [HI]}


def test_null_fields_and_empty_tools_are_dropped():
    assert chat({"temperature": None, "tools": [], "stream_options": {"include_usage": True}}) == {
        "messages": [HI]
    }


def test_stream_options_have_a_list_of_their_own():
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
    messages = [HI, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
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
def test_addresses_and_unknown_parts_are_refused(part, message):
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
        ({"model": "m", "messages": [{"content": 1}]}, "invalid message format"),
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
        ({"model": "m", "messages": [HI], "n": True}, "n must be between 1 and 16"),
        ({"model": "m", "messages": [HI], "n": "9"}, "n must be between 1 and 16"),
        ({"model": "m", "messages": [HI], "top_logprobs": 21},
         "top_logprobs must be between 0 and 20"),
    ],
)  # fmt: skip
def test_a_bad_chat_request_is_refused(body, message):
    assert refusal_of(chat_request, body) == message


@pytest.mark.parametrize(
    "prompt", ["x", ["x", "y"], [1, 2, 3] * 50, [[1, 2], [3]], ["x"] * openai.MAX_PROMPTS]
)
def test_a_completion_keeps_its_prompt(prompt):
    body = {"model": "m", "prompt": prompt, "logprobs": 5, "prompt_embeds": "x", "tools": []}
    assert completion_request(json.dumps(body).encode()) == (
        "m",
        {"prompt": prompt, "logprobs": 5},
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ["x"] * 17}, "cannot take 17 prompts, at most 16"),
        ({"logprobs": 21}, "logprobs must be between 0 and 20"),
    ],
)
def test_a_completion_is_bounded(fields, message):
    assert refusal_of(completion_request, {"model": "m"} | fields) == message


@pytest.mark.parametrize("decode", [chat_request, completion_request])
@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_but_bad_input(decode, body):
    with suppress(BadInput):
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


@given(st.dictionaries(FIELDS, ANY))
def test_no_json_raises_anything_but_bad_input(body):
    for decode in (chat_request, completion_request):
        with suppress(BadInput):
            decode(json.dumps({"model": "m"} | body).encode())


def test_models_are_listed_as_openai_lists_them():
    entry = ListedModel(id="test:latest", created=7)
    assert openai.model(entry) == (
        b'{"id":"test:latest","object":"model","created":7,"owned_by":"library"}\n'
    )
    assert openai.models([entry]) == (
        b'{"object":"list","data":[' + openai.model(entry).strip() + b"]}\n"
    )
    assert openai.models([]) == b'{"object":"list","data":[]}\n'
