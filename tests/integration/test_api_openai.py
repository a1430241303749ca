"""OpenAI's routes as numbered questions: chat in its envelope and its frames, and models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.daemon import Daemon, until
from tests.integration.asking import HI, post
from tests.vectors import numbered

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "test", "messages": HI}


@pytest.mark.parametrize(
    ("body", "status", "text", "kind"),
    numbered(
        (64, {"model": "test", "messages": []}, 400, "[] is too short - 'messages'",
         "invalid_request_error"),
        (65, {"model": "nope", "messages": HI}, 404, "model 'nope' not found", "not_found_error"),
        (0, b"", 400, "EOF", "invalid_request_error"),
        (0, {"messages": HI}, 400, "model is required", "invalid_request_error"),
    ),
)  # fmt: skip
def test_refusals_have_their_own_envelope(
    plain: Daemon, body: Any, status: int, text: str, kind: str
) -> None:
    assert post(plain, CHAT, body) == (
        status,
        {"error": {"message": text, "type": kind, "param": None, "code": None}},
    )


@pytest.mark.vector(66)
def test_66_an_answer_in_one_object(plain: Daemon) -> None:
    status, answer = post(plain, CHAT, ASKED)
    assert status == 200
    assert answer["id"].startswith("chatcmpl-")
    assert (answer["object"], answer["model"]) == ("chat.completion", "test")
    assert isinstance(answer["created"], int)
    [choice] = answer["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "The capital of France is Paris."
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 2


@pytest.mark.vector(67)
def test_67_the_frames_of_a_stream(plain: Daemon) -> None:
    body = ASKED | {"stream": True, "stream_options": {"include_usage": True}}
    answer = plain.http.post(CHAT, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("chat.completion.chunk", "test")
    }
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    *said, usage = chunks
    choices = [choice for chunk in said for choice in chunk["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == "The capital of France is Paris."
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0


def test_usage_is_streamed_to_who_asks_and_logged_for_everyone(plain: Daemon) -> None:
    body = ASKED | {"stream": True}
    before = len(re.findall(r"/v1/chat.*completion_tokens=\d+", plain.text()))
    assert '"choices":[]' not in plain.http.post(CHAT, json=body).text
    until(lambda: len(re.findall(r"/v1/chat.*completion_tokens=\d+", plain.text())) > before)


@pytest.mark.vector(69)
def test_69_models_are_listed_and_told_one_by_one(plain: Daemon) -> None:
    listed = plain.http.get("/v1/models").json()
    [model] = listed["data"]
    assert list(listed) == ["object", "data"]
    assert list(model) == ["id", "object", "created", "owned_by"]
    assert isinstance(model.pop("created"), int)
    assert model == {"id": "test:latest", "object": "model", "owned_by": "library"}
    assert plain.http.get("/v1/models/test").json()["id"] == "test"
    assert plain.http.get("/v1/models/no/pe").json()["error"]["type"] == "not_found_error"
