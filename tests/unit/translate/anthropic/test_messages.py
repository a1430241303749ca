"""Only the allowed fields of an Anthropic request reach the engine."""

from __future__ import annotations

import json
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.anthropic.messages import count_request, messages_request
from vllamad.translate.engine.request_fields import LEFT_OUT

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
def test_fields_that_are_not_allowed_are_dropped(field):
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


def test_an_image_gets_the_media_type_of_its_bytes():
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


def test_unsupported_blocks_and_messages_of_only_these_are_left_out():
    skipped = [{"type": kind} for kind in ("server_tool_use", "web_search_tool_result")]
    text = {"type": "text", "text": "hi"}
    kept = asked(
        messages=[
            {"role": "assistant", "content": [*skipped, {"type": "redacted_thinking"}]},
            {"role": "user", "content": [*skipped, text]},
        ]
    )
    assert kept["messages"] == [{"role": "user", "content": [text]}]


def test_an_empty_list_of_tools_is_removed():
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
        ({"model": "m", "max_tokens": 5, "messages": [{"role": "tool", "content": "x"}]},
         'messages: role "tool" is not supported'),
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


@accepts_some
@example(body={"messages": [{"role": "user", "content": "hi"}]})
@given(st.dictionaries(FIELDS, ANY))
def test_no_json_raises_anything_but_bad_input(body):
    for decode in (messages_request, count_request):
        with accepted_or_refused():
            decode(json.dumps({"model": "m", "max_tokens": 1} | body).encode())


def left_out_of(**fields: object) -> tuple[dict[str, object], set[str]]:
    body: dict[str, object] = {"model": "m", "max_tokens": 5, "messages": [HI]}
    kept = messages_request(json.dumps(body | fields).encode())[1]
    return kept, {*cast("list[str]", kept.pop(LEFT_OUT, []))}


@pytest.mark.case("F5")
def test_server_tools_are_left_out_with_a_choice_of_them():
    search = {"type": "web_search_20250305", "name": "web_search"}
    choice = {"type": "tool", "name": "web_search"}
    kept, left_out = left_out_of(tools=[search, TOOL], tool_choice=choice)
    assert (kept["tools"], "tool_choice" in kept) == ([TOOL], False)
    assert left_out == {"tool web_search_20250305"}
    kept, _ = left_out_of(tools=[search], tool_choice={"type": "any"})
    assert not {"tools", "tool_choice"} & kept.keys()


@pytest.mark.case("F4", "B4")
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
def test_a_choice_without_tools_is_ignored(tools):
    assert "tool_choice" not in asked(tool_choice={"type": "auto"}, **tools)


@pytest.mark.parametrize(
    ("choice", "stays"),
    [({"type": "tool", "name": "f"}, True), ({"type": "tool", "name": "g"}, False),
     ({"type": "any"}, True), ({"type": "zzz"}, False), ({}, False)],
)  # fmt: skip
def test_an_impossible_tool_choice_is_removed(choice, stays):
    assert ("tool_choice" in asked(tools=[TOOL], tool_choice=choice)) is stays


DOCUMENTS = [
    ({"type": "text", "media_type": "text/plain", "data": "said"}, "said"),
    ({"type": "content", "content": "said"}, "said"),
    ({"type": "content", "content": [{"type": "text", "text": "a"}, {"text": "b"}, 1]}, "a\nb"),
    ({"type": "base64", "media_type": "text/plain", "data": "c2FpZA=="}, "said"),
]


@pytest.mark.case("B5", "F5")
@pytest.mark.parametrize(("source", "text"), DOCUMENTS)
def test_a_document_that_is_text_keeps_its_text(source, text):
    block = {"type": "document", "source": source, "title": "T", "citations": {"enabled": True}}
    assert blocks(block) == [{"role": "user", "content": [{"type": "text", "text": f"T\n{text}"}]}]


@pytest.mark.case("B5", "F5")
@pytest.mark.parametrize(
    "source",
    [{"type": "base64", "media_type": "application/pdf", "data": "AA=="}, {"type": "url"}, None,
     {"type": "base64", "media_type": "text/plain", "data": "/w=="}, {"type": "text", "data": 1},
     {"type": "content", "content": [1]}, {"type": "content", "content": 1}],
)  # fmt: skip
def test_any_other_document_is_left_out_and_reported(source):
    hi = {"type": "text", "text": "hi"}
    given = [{"role": "user", "content": [{"type": "document", "source": source}, hi]}]
    kept, left_out = left_out_of(messages=given)
    assert kept["messages"] == [{"role": "user", "content": [hi]}]
    assert left_out == {"block document"}


@pytest.mark.case("F5")
def test_unsupported_blocks_are_left_out_and_reported():
    search_result = {
        "type": "search_result",
        "source": "s",
        "title": "T",
        "content": [{"text": "x"}],
    }
    hosted = ["tool_reference", "container_upload", "server_tool_use", "new_one"]
    stored = {"type": "image", "source": {"type": "file", "file_id": "f"}}
    content = [search_result, stored, *({"type": kind} for kind in hosted)]
    kept, left_out = left_out_of(messages=[{"role": "user", "content": content}])
    text = [{"type": "text", "text": "T\ns\nx"}]
    assert kept["messages"] == [{"role": "user", "content": text}]
    assert left_out == {"image of a stored file"} | {f"block {kind}" for kind in hosted}


def test_unsupported_messages_alone_leave_an_empty_user_message():
    assert blocks({"type": "container_upload"}) == [{"role": "user", "content": ""}]


def test_a_developer_message_becomes_system_and_an_unknown_effort_is_removed():
    given = [{"role": "developer", "content": "s"}, HI]
    kept = asked(messages=given, output_config={"Effort": "minimal"})
    assert kept["messages"] == [{"role": "system", "content": "s"}, HI]
    assert kept["output_config"] == {}


def test_a_result_without_content_is_empty():
    result = {"type": "tool_result", "tool_use_id": "t", "content": None}
    assert blocks(result) == [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}
    ]


@pytest.mark.case("B10")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([], "json: cannot unmarshal array into Go value of type anthropic.MessagesRequest"),
        ({"model": "m", "max_tokens": "x", "messages": [HI]}, "json: cannot unmarshal string into"
         " Go struct field MessagesRequest.max_tokens of type int"),
        ({"model": "m", "max_tokens": 5, "temperature": "x", "messages": [HI]}, "json: cannot"
         " unmarshal string into Go struct field MessagesRequest.temperature of type float64"),
        ({"model": "m", "max_tokens": 5, "messages": [{"role": 1}]}, "json: cannot unmarshal number"
         " into Go struct field MessagesRequest.messages.role of type string"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_with_anthropics_type(body, text):
    assert refusal_of(body) == text
