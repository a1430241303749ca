"""Only the allowed fields of a Responses request reach the engine, and nothing is stored."""

from __future__ import annotations

import base64
import json
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.engine.request_fields import LEFT_OUT, keeping_model_name
from vllamad.translate.openai.responses import responses_request

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def asked(**fields: object) -> dict[str, object]:
    name, kept = responses_request(json.dumps({"model": "m", "input": "hi"} | fields).encode())
    assert name == "m"
    return kept


def items(*given: object) -> object:
    return asked(input=list(given))["input"]


def refusal_of(**fields: object) -> str:
    with pytest.raises(BadInput) as refused:
        asked(**fields)
    assert refused.value.status == 400
    return refused.value.message


def test_ordinary_fields_pass_and_nothing_is_stored():
    fields: dict[str, object] = {
        "instructions": "be brief", "temperature": 0, "max_output_tokens": 5, "stream": True,
        "tools": [{"type": "function", "name": "f"}], "tool_choice": "auto", "top_logprobs": 2,
        "text": {"format": {"type": "json_object"}}, "metadata": {"model": "x"},
        "truncation": "auto",
    }  # fmt: skip
    assert asked(**fields, store=True) == fields | {"input": "hi", "store": False}


@pytest.mark.parametrize(
    "field",
    ["chat_template_kwargs", "kv_transfer_params", "priority", "request_id", "structured_outputs",
     "previous_input_messages", "enable_response_messages", "service_tier", "prompt_cache_key",
     "safety_identifier", "made_up"],
)  # fmt: skip
def test_fields_that_are_not_allowed_are_dropped(field):
    assert asked(**{field: "x"}) == {"input": "hi", "store": False}


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background", "prompt"])
def test_fields_that_need_stored_state_are_refused_unless_empty(field):
    assert refusal_of(**{field: "x"}).startswith(f"{field} is not supported: ")
    assert asked(**{field: None}) == asked(**{field: False}) == asked()


@pytest.mark.parametrize(
    ("include", "kept"),
    [
        (["reasoning.encrypted_content"], None),
        (["message.output_text.logprobs", "x"], ["message.output_text.logprobs"]),
        ("message.output_text.logprobs", None),
    ],
)
def test_only_logprobs_of_include_are_kept(include, kept):
    assert asked(include=include).get("include") == kept


def test_the_effort_gets_vllms_form():
    assert asked(reasoning={"effort": "ultra", "summary": "auto"})["reasoning"] == {
        "effort": "max",
        "summary": "auto",
    }
    assert refusal_of(reasoning={"effort": "x"}).startswith('invalid reasoning value: "x"')
    assert asked(reasoning="high")["reasoning"] == "high"  # the engine's to judge


def test_a_message_may_do_without_its_type():
    assert items({"role": "user", "content": "hi"}) == [
        {"role": "user", "content": "hi", "type": "message"}
    ]


def test_an_assistants_content_may_be_a_plain_text():
    message = {"type": "message", "role": "assistant", "content": "hi"}
    assert items(message) == [message]


def test_parts_are_rebuilt():
    parts = [
        {"type": "input_text", "text": "what", "x": 1},
        {"type": "input_image", "image_url": PICTURE, "detail": "low"},
    ]
    assert items({"type": "message", "role": "user", "content": parts, "x": 1}) == [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what"},
                {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
            ],
        }
    ]


def test_an_assistants_parts_are_joined():
    parts = [
        {"type": "output_text", "text": "The ", "annotations": [], "logprobs": None},
        {"type": "refusal", "refusal": "end"},
        {"type": "output_text", "text": None},
    ]
    [message] = items({"type": "message", "id": "1", "role": "assistant", "content": parts})  # type: ignore[misc]
    assert message == {
        "type": "message",
        "id": "1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "The end", "annotations": []}],
    }


def test_an_output_can_be_sent_back_unchanged():
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [
        {"type": "reasoning_text", "text": "hm"}]}  # fmt: skip
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "3"}
    custom = {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"}
    output = {"type": "custom_tool_call_output", "call_id": "2", "output": [
        {"type": "input_text", "text": "y"}]}  # fmt: skip
    sent = [reasoning, call, result, custom, output]
    nulls = {"status": None, "encrypted_content": "secret"}
    assert items(*(item | nulls for item in sent)) == sent


def test_reasoning_without_a_summary_gets_an_empty_one_and_a_sealed_one_is_left_out():
    content = [{"type": "reasoning_text", "text": "so"}]
    assert items({"type": "reasoning", "content": content}) == [
        {"type": "reasoning", "content": content, "summary": []}
    ]
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    assert left_out_of(input=[sealed]) == ({"input": "", "store": False}, {"item reasoning"})


def message(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "input must be a string or array"),
        ({}, "input must be a string or array"),
        ([1], "input[0]: input item must be an object"),
        ([{}], "input[0]: input item missing required 'type' field"),
        ([{"type": []}, 1], "input[0]: input item missing required 'type' field"),
        ([{"type": [1]}], "input[0]: input item missing required 'type' field"),
        (message("x"), "input[0]: content[0]: content part missing required 'type' field"),
        (message({"type": "input_text", "text": 1}),
         "input[0]: content[0]: json: cannot unmarshal number into Go struct field"
         " ResponsesRequest.input.content.text of type string"),
        (message({"type": "input_image"}), "input[0]: content[0]: invalid image input"),
        (message({"type": "input_image", "image_url": "http://x"}),
         "input[0]: content[0]: image URLs are not currently supported, please use base64 encoded "
         "data instead"),
        ([{"type": "item_reference", "id": "x"}],
         "input[0]: item_reference is not supported: responses are not stored, send the whole "
         "conversation as input"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_path(given, text):
    assert refusal_of(input=given) == text


F = {"type": "function", "name": "f"}


def left_out_of(**fields: object) -> tuple[dict[str, object], set[str]]:
    body = json.dumps({"model": "m", "input": "hi"} | fields).encode()
    kept = responses_request(body)[1]
    return kept, {*cast("list[str]", kept.pop(LEFT_OUT, []))}


@pytest.mark.case("F5")
@pytest.mark.parametrize(
    "tool", ["web_search", "file_search", "mcp", "code_interpreter", "local_shell", "new_one"]
)
def test_hosted_tools_are_left_out_and_reported(tool):
    kept, left_out = left_out_of(tools=[F, {"type": tool}], tool_choice={"type": tool})
    assert kept["tools"] == [F]
    assert "tool_choice" not in kept
    assert left_out == {f"tool {tool}"}


@pytest.mark.case("F5", "F4")
def test_the_choice_is_removed_when_no_tool_remains():
    kept, _ = left_out_of(
        tools=[{"type": "web_search"}], tool_choice="required", parallel_tool_calls=True
    )
    assert kept == {"input": "hi", "store": False}
    assert asked(tools=[], tool_choice="auto") == {"input": "hi", "store": False}


@pytest.mark.parametrize(
    ("choice", "stays"),
    [
        ("required", True), ("x", False), ({"type": "function", "name": "f"}, True),
        ({"type": "function", "name": "g"}, False), ({"type": "allowed_tools"}, False), (1, False),
    ],
)  # fmt: skip
def test_an_impossible_tool_choice_is_removed(choice, stays):
    assert ("tool_choice" in asked(tools=[F], tool_choice=choice)) is stays


def test_a_tool_without_a_type_is_refused_with_its_path():
    assert refusal_of(tools=[F, {}]) == "tools[1]: missing required 'type' field"
    assert refusal_of(tools=[1]) == "tools[0]: missing required 'type' field"


@pytest.mark.case("F5")
def test_items_of_hosted_tools_are_left_out_and_reported():
    hosted = ["web_search_call", "local_shell_call", "local_shell_call_output", "mcp_call", "zzz"]
    hi = {"role": "user", "content": "hi"}
    kept, left_out = left_out_of(input=[{"type": kind} for kind in hosted] + [hi])
    assert kept["input"] == [hi | {"type": "message"}]
    assert left_out == {f"item {kind}" for kind in hosted}
    assert left_out_of(input=[{"type": "compaction"}])[0]["input"] == ""


@pytest.mark.case("F5")
def test_a_file_keeps_its_text_and_other_parts_are_left_out():
    text = "data:text/plain;base64," + base64.b64encode(b"said").decode()
    given = message(
        {"type": "input_file", "filename": "a.txt", "file_data": text},
        {"type": "input_file", "file_data": text},
        {"type": "input_file", "file_data": "data:text/plain;base64,/w=="},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_image", "file_id": "f"},
        {"type": "x"},
    )
    kept, left_out = left_out_of(input=given)
    [read] = cast("list[dict[str, object]]", kept["input"])
    assert read["content"] == [
        {"type": "input_text", "text": "a.txt\nsaid"},
        {"type": "input_text", "text": "said"},
    ]
    assert left_out == {"part input_file", "part input_image", "part x"}
    [alone] = cast("list[dict[str, object]]", items(*message({"type": "x"})))
    assert alone["content"] == ""


def test_schemas_are_vetted():
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "zzz"}}
    assert refusal_of(text={"format": schema}) == (
        'invalid text.format: unknown type "zzz" at the top'
    )
    assert asked(text={"verbosity": "low"})["text"] == {"verbosity": "low"}


def test_values_that_only_the_engine_reads_as_true_are_refused():
    assert refusal_of(stream=1) == (
        "json: cannot unmarshal number into Go struct field ResponsesRequest.stream of type bool"
    )


def test_logprobs_are_bounded():
    assert refusal_of(top_logprobs=21) == "top_logprobs must be between 0 and 20"


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "image_url", "output"]), inner)
        | st.builds(
            lambda kind, role, more: {"type": kind, "role": role, "content": more, "output": more},
            st.sampled_from(["message", "reasoning", "function_call_output", "input_text"]),
            st.sampled_from(["assistant", "user"]),
            inner,
        )
    ),
)
FIELDS = st.sampled_from(["model", "input", "tools", "include", "reasoning", "top_logprobs"])


@accepts_some
@example(body={"input": "hi"})
@given(st.dictionaries(FIELDS, ANY))
def test_no_json_raises_anything_but_bad_input(body):
    with accepted_or_refused():
        responses_request(json.dumps({"model": "m"} | body).encode())


@pytest.mark.case("B6")
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("temperature", "x", "string into Go struct field ResponsesRequest.temperature of type"),
        ("max_output_tokens", True, "bool into Go struct field ResponsesRequest.max_output_tokens"),
        ("stop_token_ids", 5, "number into Go struct field ResponsesRequest.stop_token_ids"),
        ("stop", 5, "invalid type for 'stop' field: float64"),
    ],
)
def test_a_wrong_type_is_refused_as_on_the_other_routes(
    field: str, value: object, told: str
) -> None:
    body = {"model": "m", "input": "x", field: value}
    with pytest.raises(BadInput, match=told):
        responses_request(json.dumps(body).encode())


@pytest.mark.case("B11")
def test_an_error_is_returned_with_the_model_name() -> None:
    decode = keeping_model_name(responses_request)
    name, fault = decode(b'{"Model":"m"}')
    assert (name, type(fault)) == ("m", BadInput)
    assert decode(b'{"model":"m","input":"hi"}') == ("m", {"input": "hi", "store": False})
    with pytest.raises(BadInput, match="model is required"):
        decode(b"{}")
