"""Clients of Responses and Anthropic's API get the engine's response with the API's keys."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import openai.types.responses
import pytest

from tests.support.paths import RECORDED
from tests.support.sdk_types import faults
from vllamad.errors import EngineRefused, WorkerLost
from vllamad.translate.engine.named_events import (
    MessagesPassthrough,
    NamedEventPassthrough,
    ResponsesPassthrough,
)

SERVED = "smollm2:135m"
NOW = 1_800_000_000_123_456_789
APIS = [(MessagesPassthrough, "messages"), (ResponsesPassthrough, "responses")]

both = pytest.mark.parametrize(("api", "name"), APIS)


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def answer(
    api: type[NamedEventPassthrough], asked: str = SERVED, *, stream: bool = True
) -> NamedEventPassthrough:
    return api(stream=stream, served_name=SERVED, requested_name=asked)


def data_of(events: bytes) -> list[Any]:
    return [json.loads(event.partition(b"\ndata: ")[2]) for event in events.split(b"\n\n") if event]


@both
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_events_are_the_same_for_any_chunking(api, name, size) -> None:
    stream = recorded(f"{name}.sse")
    output = answer(api)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert b"".join(output.feed(piece, 0) for piece in pieces) + output.finish(0) == (
        answer(api).feed(stream, 0)
    )
    assert output.complete
    assert output.failed is None


@both
def test_deltas_pass_unchanged(api, name) -> None:
    mark = {"messages": b"content_block_delta", "responses": b"output_text.delta"}[name]
    deltas = {event for event in recorded(f"{name}.sse").split(b"\n\n") if mark in event}
    assert deltas
    assert deltas < set(answer(api).feed(recorded(f"{name}.sse"), 0).split(b"\n\n"))


TYPES: dict[str, tuple[object, object]] = {
    "messages": (anthropic.types.Message, anthropic.types.RawMessageStreamEvent),
    "responses": (openai.types.responses.Response, openai.types.responses.ResponseStreamEvent),
}
# The SDKs have defaults for these; strictly typed clients of other languages insist on them.
REQUIRED = {
    "messages": ("stop_reason", "stop_sequence"),
    "responses": ("error", "incomplete_details", "metadata", "completed_at", "instructions"),
}
HOLDER = {"messages": "message", "responses": "response"}


@pytest.mark.case("F11", "B8")
@both
def test_a_response_has_the_keys_of_the_sdks_types_and_no_others(api, name) -> None:
    whole = answer(api, stream=False)
    whole.feed(recorded(f"{name}.json"), NOW)
    body = json.loads(whole.finish(NOW))
    assert faults(body, TYPES[name][0], required=REQUIRED[name]) == []
    assert body["id"].startswith({"messages": "msg_", "responses": "resp_"}[name])


@pytest.mark.case("F11", "B8")
@both
def test_each_event_has_the_keys_of_the_sdks_types_and_no_others(api, name) -> None:
    events = data_of(answer(api).feed(recorded(f"{name}.sse"), NOW))
    required = [f"{HOLDER[name]}.{key}" for key in REQUIRED[name]]
    assert [
        fault for event in events for fault in faults(event, TYPES[name][1], required=required)
    ] == []
    assert sum(HOLDER[name] in event for event in events) in (1, 3)


@pytest.mark.case("B8")
def test_only_a_completed_response_has_completed_at() -> None:
    events = data_of(answer(ResponsesPassthrough).feed(recorded("responses.sse"), NOW))
    held = [event["response"] for event in events if "response" in event]
    assert [response["completed_at"] for response in held] == [None, None, NOW // 10**9]
    assert [response["metadata"] for response in held] == [{}, {}, {}]


def test_metadata_is_returned_and_usage_may_be_absent() -> None:
    response = {"model": "a", "metadata": {"k": "v"}, "usage": {"input_tokens": 1}, "id": "resp_1"}
    output = answer(ResponsesPassthrough, stream=False)
    output.feed(json.dumps(response).encode(), 0)
    assert json.loads(output.finish(0)) == response | {
        "model": SERVED, "error": None, "completed_at": None,
    }  # fmt: skip


def test_an_id_of_another_server_passes_unchanged() -> None:
    output = answer(MessagesPassthrough, stream=False)
    output.feed(json.dumps({"model": "a", "id": "msg_7"}).encode(), 0)
    assert json.loads(output.finish(0))["id"] == "msg_7"


@both
def test_the_response_has_the_requested_model_name(api, name) -> None:
    output, whole = answer(api, "SmolLM2:135M"), answer(api, "SmolLM2:135M", stream=False)
    out = output.feed(recorded(f"{name}.sse"), 0)
    whole.feed(recorded(f"{name}.json"), 0)
    for text in (out, whole.finish(0)):
        assert b'"model":"SmolLM2:135M"' in text
        assert b'"model":"smollm2:135m"' not in text


def test_a_model_name_in_the_clients_text_is_not_renamed() -> None:
    response = '"response":{"metadata":{"model":"a"},"model":"a","tools":[{"model":"a"}]}'
    event = f'event: response.created\ndata: {{"type":"response.created",{response}}}\n\n'.encode()
    output = ResponsesPassthrough(stream=True, served_name="a", requested_name="b")
    [made] = data_of(output.feed(event, 0))
    assert made["response"] == {
        "metadata": {"model": "a"}, "model": "b", "tools": [{"model": "a"}], "error": None,
        "completed_at": None,
    }  # fmt: skip


@both
@pytest.mark.parametrize("stream", [True, False])
def test_the_usage_is_counted(api, name, stream) -> None:
    output = answer(api, stream=stream)
    output.feed(recorded(f"{name}.{'sse' if stream else 'json'}"), 0)
    output.finish(0)
    assert (output.prompt_tokens, output.completion_tokens) == (37, 8)


def test_cached_tokens_of_a_prompt_are_counted_too() -> None:
    usage = {"input_tokens": 1, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 6}
    output = answer(MessagesPassthrough, stream=False)
    output.feed(json.dumps({"usage": usage | {"output_tokens": 2}}).encode(), 0)
    output.finish(0)
    assert (output.prompt_tokens, output.completion_tokens) == (37, 2)


def test_a_token_count_passes_unchanged() -> None:
    output = answer(MessagesPassthrough, "other", stream=False)
    output.feed(b'{"input_tokens":37}', 0)
    assert output.finish(0) == b'{"input_tokens":37}'


@both
def test_a_body_that_is_no_object_passes_unchanged(api, name) -> None:
    output = answer(api, "other", stream=False)
    output.feed(b"nonsense", 0)
    assert output.finish(0) == b"nonsense"


def test_a_usage_of_unknown_form_is_not_counted() -> None:
    output = answer(MessagesPassthrough)
    event = b'event: message_delta\ndata: {"type":"message_delta","usage":{"input_tokens":"x"}}\n\n'
    assert output.feed(event, 0) == event
    assert output.prompt_tokens == 0


@both
def test_a_broken_off_stream_ends_with_an_error_event(api, name) -> None:
    output = answer(api)
    head = recorded(f"{name}.sse").split(b"\n\n")[:5]
    out = output.feed(b"\n\n".join(head) + b"\n\n", 0) + output.finish(0)
    assert out.count(b"event: error\n") == 1
    assert data_of(out)[-1]["type"] == "error"
    assert data_of(out)[-1]["error"]["message"].startswith("model runner has unexpectedly stopped")
    assert isinstance(output.failed, WorkerLost)
    assert not output.complete
    assert output.feed(b'event: x\ndata: {"type":"message_stop"}\n\n', 0) == b""


def test_an_error_of_responses_has_the_next_number_and_both_shapes() -> None:
    output = answer(ResponsesPassthrough)
    output.feed(b"\n\n".join(recorded("responses.sse").split(b"\n\n")[:5]) + b"\n\n", 0)
    [error] = data_of(output.fail(WorkerLost("gone")))
    assert error == {
        "type": "error",
        "sequence_number": 5,
        "code": "api_error",
        "message": "gone",
        "param": None,
        "error": {"message": "gone", "type": "api_error", "param": None, "code": None},
    }


def test_an_error_of_messages_has_the_type_for_its_status() -> None:
    first = b'event: ping\ndata: {"type":"ping"}\n\n'
    output = answer(MessagesPassthrough)
    assert output.feed(first, 0) == first
    assert output.fail(EngineRefused("busy", status=503)) == (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
        b'"message":"busy"}}\n\n'
    )


@both
@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"x"}}\n\n',
        b'data: {"error":{"message":"x","code":500}}\n\n',
        b"data: [DONE]\n\n",
    ],
)
def test_an_engine_error_before_the_first_event_becomes_a_status(api, name, event) -> None:
    output = answer(api)
    assert output.feed(event, 0) == b""
    assert isinstance(output.failed, EngineRefused)
    assert output.failed.status == 500


@pytest.mark.case("F11")
@pytest.mark.parametrize(
    ("block", "passed"),
    [
        ('{"type":"thinking","thinking":""}', '{"signature":"","type":"thinking","thinking":""}'),
        ('{"type":"thinking","signature":"s"}', '{"signature":"s","type":"thinking"}'),
        ('{"type":"text","text":""}', '{"type":"text","text":""}'),
        ("null", "null"),
    ],
)
def test_the_start_of_a_thinking_block_has_a_signature(block: str, passed: str) -> None:
    start = '{"type":"content_block_start","index":0,"content_block":%s}'
    event = f"event: content_block_start\ndata: {start % block}\n\n".encode()
    [event_data] = data_of(answer(MessagesPassthrough).feed(event, 0))
    assert event_data == json.loads(start % passed)


@both
def test_nothing_follows_the_end(api, name) -> None:
    output = answer(api)
    stream = recorded(f"{name}.sse")
    assert output.feed(stream + b"data: [DONE]\n\n", 0) == answer(api).feed(stream, 0)
    assert output.failed is None
