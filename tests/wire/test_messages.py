"""Only what is allowed of an Anthropic request reaches the engine."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import BadInput
from vllamad.wire.messages import count_request, messages_request

HI = {"role": "user", "content": "hi"}
PNG = "iVBORw0KGgo="
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}


def asked(decode=messages_request, **fields: object) -> dict[str, object]:
    body: dict[str, object] = {"model": "m", "max_tokens": 5, "messages": [HI]}
    name, kept = decode(json.dumps(body | fields).encode())
    assert name == "m"
    return kept


def blocks(*given: object, role: str = "user") -> object:
    return asked(messages=[{"role": role, "content": list(given)}])["messages"]


def refusal_of(body: object) -> str:
    with pytest.raises(BadInput) as refused:
        messages_request(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert refused.value.status == 400
    return refused.value.message


def test_ordinary_fields_pass_and_the_model_is_left_to_the_caller():
    fields: dict[str, object] = {
        "temperature": 0, "top_p": 0.5, "top_k": 3, "stream": True, "stop_sequences": ["x"],
        "tool_choice": {"type": "auto"}, "thinking": {"type": "disabled"}, "tools": [TOOL],
        "output_config": {"effort": "low"},
    }  # fmt: skip
    assert asked(**fields) == fields | {"max_tokens": 5, "messages": [HI]}


@pytest.mark.parametrize(
    "field",
    ["metadata", "service_tier", "chat_template_kwargs", "kv_transfer_params", "vllm_xargs",
     "cache_salt", "mm_payload", "container", "made_up"],
)  # fmt: skip
def test_what_could_hurt_or_means_nothing_is_dropped(field):
    assert asked(**{field: {"a": 1}}) == {"max_tokens": 5, "messages": [HI]}


def test_a_count_needs_no_limit_and_takes_no_sampling():
    assert asked(count_request, temperature=0, system="s") == {"messages": [HI], "system": "s"}


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be brief"}]])
def test_a_system_prompt_is_a_text_or_blocks(system):
    assert asked(system=system)["system"] == system


def test_cache_marks_are_no_part_of_blocks_and_tools():
    mark = {"cache_control": {"type": "ephemeral"}}
    text = {"type": "text", "text": "hi"}
    kept = asked(
        messages=[HI | {"content": [text | mark]}], system=[text | mark], tools=[TOOL | mark]
    )
    assert kept == {
        "max_tokens": 5,
        "messages": [HI | {"content": [text]}],
        "system": [text],
        "tools": [TOOL],
    }


def test_a_picture_is_called_what_its_bytes_are():
    source = {"type": "base64", "media_type": "image/webp", "data": PNG}
    assert blocks({"type": "image", "source": source, "x": 1}) == [
        HI | {"content": [{"type": "image", "source": source | {"media_type": "image/png"}}]}
    ]


def test_tools_and_their_results_pass():
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "3", "is_error": False}
    listed = result | {"content": [{"type": "text", "text": "3"}]}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    messages = [
        {"role": "assistant", "content": [thought, use]},
        {"role": "user", "content": [result, listed]},
    ]
    assert asked(messages=messages)["messages"] == messages


def test_traces_of_other_servers_are_skipped_and_so_is_a_message_of_nothing_else():
    skipped = [{"type": kind} for kind in ("server_tool_use", "web_search_tool_result")]
    text = {"type": "text", "text": "hi"}
    kept = asked(
        messages=[
            {"role": "assistant", "content": [*skipped, {"type": "redacted_thinking"}]},
            {"role": "user", "content": [*skipped, text]},
        ]
    )
    assert kept["messages"] == [{"role": "user", "content": [text]}]


def test_empty_tools_are_none():
    assert "tools" not in asked(tools=[])


def with_block(block: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 5, "messages": [HI | {"content": [block]}]}


def with_tool(tool: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 5, "messages": [HI], "tools": [tool]}


BASE64_ONLY = "Only base64 images are supported."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b"{", "unexpected EOF"),
        ({}, "model is required"),
        ({"model": "m"}, "max_tokens is required and must be positive"),
        ({"model": "m", "max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"model": "m", "max_tokens": "5"}, "json: cannot unmarshal string into Go struct field "
         "MessagesRequest.max_tokens of type int"),
        ({"model": "m", "max_tokens": 5, "stream": "yes"}, "json: cannot unmarshal string into Go "
         "struct field MessagesRequest.stream of type bool"),
        ({"model": "m", "max_tokens": 5}, "messages is required"),
        ({"model": "m", "max_tokens": 5, "messages": []}, "messages is required"),
        ({"model": "m", "max_tokens": 5, "messages": [1]}, "json: cannot unmarshal number into "
         "Go struct field MessagesRequest.messages of type anthropic.MessageParam"),
        ({"model": "m", "max_tokens": 5, "messages": [{"role": "user"}]},
         "messages: content must be a text or a list of blocks"),
        ({"model": "m", "max_tokens": 5, "messages": [HI], "system": 1},
         "system: content must be a text or a list of blocks"),
        (with_block("hi"), "content block missing required 'type' field"),
        (with_block({"text": "hi"}), "content block missing required 'type' field"),
        (with_block({"type": "document"}), "unknown content type: document"),
        (with_block({"type": "image"}), "invalid image source"),
        (with_block({"type": "image", "source": {"type": "url", "url": "http://x"}}),
         f"invalid image source type: url. {BASE64_ONLY}"),
        (with_block({"type": "image", "source": {"type": "base64", "data": "!"}}),
         "illegal base64 data at input byte 0"),
        (with_block({"type": "tool_use", "name": "f"}),
         "tool_use block missing required 'id' field"),
        (with_block({"type": "tool_use", "id": "1"}),
         "tool_use block missing required 'name' field"),
        (with_block({"type": "tool_result", "content": [{"type": "image", "source": {}}]}),
         f"invalid image source type: None. {BASE64_ONLY}"),
        (with_tool(TOOL) | {"output_config": {"format": {
            "type": "json_schema", "schema": {"type": "zzz"}}}},
         'invalid output_config.format: unknown type "zzz" at the top'),
        (with_tool(1), "json: cannot unmarshal number into Go struct field "
         "MessagesRequest.tools of type anthropic.Tool"),
        (with_tool({"name": "f"}), 'invalid input_schema for tool "f": it must be an object'),
        (with_tool({"type": "web_search_20250305", "name": "web_search"}),
         'tool type "web_search_20250305" is not supported'),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused(body, message):
    assert refusal_of(body) == message


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "source", "data", "id", "input_schema"]), inner
        )
        | st.builds(
            lambda kind, more: {"type": kind, "content": more, "source": more},
            st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking", "base64"]),
            inner,
        )
    ),
)
FIELDS = st.sampled_from(["model", "messages", "max_tokens", "tools", "system", "thinking"])


@given(st.dictionaries(FIELDS, ANY))
def test_no_json_raises_anything_but_bad_input(body):
    for decode in (messages_request, count_request):
        with suppress(BadInput):
            decode(json.dumps({"model": "m", "max_tokens": 1} | body).encode())
