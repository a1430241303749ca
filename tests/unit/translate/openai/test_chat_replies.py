"""Responses of chat and completions have the keys of OpenAI's SDK types, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.paths import RECORDED
from tests.support.sdk_types import faults
from vllamad.errors import EngineRefused, WorkerLost
from vllamad.translate.engine.fit_to_worker import AnswerForm
from vllamad.translate.openai.chat_replies import ChatReply, CompletionReply
from vllamad.translate.openai.passthrough import OpenAIPassthrough

CHATS = sorted(
    path.name
    for path in RECORDED.glob("*.sse")
    if path.name.startswith(("chat", "parsed")) and "died" not in path.name
)
INTERNAL = (
    "routed_experts", "kv_transfer_params", "ec_transfer_params", "token_ids", "metrics",
    "prompt_text", "stop_reason", "prompt_logprobs", "created_cache_tokens",
)  # fmt: skip
REASONING = ("reasoning", "reasoning_content")


def reply(kind: type[OpenAIPassthrough], *, stream: bool = True, **more: Any) -> OpenAIPassthrough:
    return kind(stream=stream, served_name="smollm2:135m", requested_name="Mine", **more)


def passed(output: OpenAIPassthrough, name: str) -> bytes:
    out = output.feed((RECORDED / name).read_bytes(), 0) + output.finish(0)
    assert output.failed is None
    return out


def events(data: bytes) -> list[dict[str, Any]]:
    *sent, done, rest = data.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in sent]


@pytest.mark.case("F11", "B7")
@pytest.mark.parametrize("name", CHATS)
def test_chat_events_have_only_openais_keys(name: str) -> None:
    data = passed(reply(ChatReply), name)
    extra = {f"choices.delta.{key}" for key in REASONING}
    for event in events(data):
        assert faults(event, ChatCompletionChunk, extra=extra) == []
        assert event["model"] == "Mine"
        assert all("finish_reason" in choice for choice in event["choices"])
    assert not any(f'"{key}"'.encode() in data for key in INTERNAL)


def said(event: dict[str, Any]) -> list[Any]:
    return [{**choice["delta"]} for choice in event["choices"]]


@pytest.mark.parametrize("name", CHATS)
def test_no_content_of_the_engine_is_lost(name: str) -> None:
    before = [json.loads(line[6:]) for line in (RECORDED / name).read_text().split("\n\n")[:-2]]
    after = events(passed(reply(ChatReply), name))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert (old["id"], old["created"]) == (new["id"], new["created"])
        for before, after in zip(old["choices"], new["choices"], strict=True):
            assert {key: v for key, v in before["delta"].items() if v is not None} == after["delta"]
            assert before["finish_reason"] == after["finish_reason"]
            assert before["logprobs"] == after.get("logprobs")


@pytest.mark.case("F11", "B7")
def test_a_chat_response_has_only_openais_keys() -> None:
    data = passed(reply(ChatReply, stream=False), "chat.json")
    answer = json.loads(data)
    required = {"choices.logprobs", "choices.message.content", "choices.message.refusal"}
    assert faults(answer, ChatCompletion, required=required) == []
    assert list(answer) == [
        "id", "object", "created", "model", "choices", "system_fingerprint", "usage",
    ]  # fmt: skip
    assert not any(f'"{key}"'.encode() in data for key in INTERNAL)


@pytest.mark.case("F11", "B7")
def test_completion_responses_have_only_openais_keys() -> None:
    required, nullable = {"choices.logprobs"}, {"choices.finish_reason"}
    whole = json.loads(passed(reply(CompletionReply, stream=False), "completions.json"))
    assert faults(whole, Completion, required=required) == []
    for event in events(passed(reply(CompletionReply), "completions.sse")):
        assert faults(event, Completion, required=required, nullable=nullable) == []


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [CALL]}


def whole(**choice: Any) -> bytes:
    choices = [{"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"} | choice]
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    details = {"completion_tokens_details": {"reasoning_tokens": 1, "x": 2}}
    return json.dumps(head | {"choices": choices, "usage": usage | details, "y": 1}).encode()


@pytest.mark.case("F11", "B7")
def test_calls_and_thoughts_of_a_chat_pass() -> None:
    output = reply(ChatReply, stream=False)
    output.feed(whole(logprobs={"content": None}), 0)
    answer = json.loads(output.finish(0))
    assert faults(answer, ChatCompletion, extra={"choices.message.reasoning"}) == []
    assert answer["choices"][0]["message"] == MESSAGE | {"refusal": None}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


def test_an_unknown_finish_reason_becomes_stop() -> None:
    output = reply(ChatReply, stream=False)
    output.feed(whole(finish_reason="repetition"), 0)
    assert json.loads(output.finish(0))["choices"][0]["finish_reason"] == "stop"


@pytest.mark.case("B3")
def test_equal_choices_are_copies() -> None:
    form = AnswerForm(copies=3)
    answer = json.loads(passed(reply(ChatReply, stream=False, form=form), "chat.json"))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 1
    assert answer["usage"]["completion_tokens"] == 24
    assert answer["usage"]["total_tokens"] == 37 + 24
    output = reply(ChatReply, form=form)
    texts = {0: "", 1: "", 2: ""}
    for event in events(passed(output, "chat.sse")):
        assert len(event["choices"]) <= 1
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert set(texts.values()) == {"The capital of France is Paris."}
    assert (output.prompt_tokens, output.completion_tokens) == (37, 24)


def test_copies_of_one_prompt_are_adjacent() -> None:
    output = reply(CompletionReply, stream=False, form=AnswerForm(copies=2))
    body = json.loads((RECORDED / "completions.json").read_text())
    body["choices"] = [body["choices"][0] | {"index": index} for index in (0, 1)]
    body["choices"][1]["text"] = "second"
    output.feed(json.dumps(body).encode(), 0)
    choices = json.loads(output.finish(0))["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] == "second" for choice in choices] == [False, False, True, True]


@pytest.mark.case("B3")
@pytest.mark.parametrize(
    ("kind", "name"), [(ChatReply, "chat-logprobs"), (CompletionReply, "completions")]
)
def test_a_muted_response_is_empty_and_ends_by_length(kind: Any, name: str) -> None:
    sent = events(passed(reply(kind, form=AnswerForm(muted=True)), f"{name}.sse"))
    choices = [choice for event in sent for choice in event["choices"]]
    assert not any((choice.get("delta") or choice).get("content") for choice in choices)
    assert not any(choice.get("text") or choice.get("logprobs") for choice in choices)
    assert choices[-1]["finish_reason"] == "length"
    assert sent[-1]["usage"]["prompt_tokens"] > 0


@pytest.mark.case("B3")
def test_a_muted_object_has_empty_content() -> None:
    form = AnswerForm(muted=True)
    answer = json.loads(passed(reply(ChatReply, stream=False, form=form), "chat.json"))
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_the_usage_is_counted_and_sent_only_on_request() -> None:
    hidden = reply(ChatReply, usage=False)
    assert b'"usage"' not in passed(hidden, "chat.sse")
    assert (hidden.prompt_tokens, hidden.completion_tokens) == (37, 8)
    running = (RECORDED / "chat.sse").read_bytes().replace(
        b'"token_ids":null}]}', b'"token_ids":null}],"usage":{"prompt_tokens":1}}'
    )  # fmt: skip
    assert b'"usage"' not in reply(ChatReply, usage=False).feed(running, 0)
    assert b'"usage":{"prompt_tokens":1,"completion_tokens":0' in reply(ChatReply).feed(running, 0)


@pytest.mark.parametrize("event", [b"nonsense", b'{"id":1}', b'{"id":"\xff"}', b"[]"])
def test_an_unreadable_event_ends_the_stream_with_an_error(event: bytes) -> None:
    output = reply(ChatReply)
    first = (RECORDED / "chat.sse").read_bytes().partition(b"\n\n")[0] + b"\n\n"
    out = output.feed(first + b"data: %b\n\n" % event + first, 0)
    assert out.count(b"data: ") == 2
    assert b"cannot read the engine's answer" in out
    assert isinstance(output.failed, EngineRefused)
    assert output.finish(0) == b""


def test_an_unreadable_object_is_refused() -> None:
    output = reply(ChatReply, stream=False)
    output.feed(b'{"id"', 0)
    assert output.finish(0) == b""
    assert isinstance(output.failed, EngineRefused)
    assert output.failed.status == 500


def test_a_broken_off_stream_ends_with_an_error_and_no_done() -> None:
    output = reply(ChatReply)
    output.feed((RECORDED / "chat.sse").read_bytes()[:600], 0)
    assert b"unexpectedly stopped" in output.finish(0)
    assert isinstance(output.failed, WorkerLost)
