"""OpenAI's routes as numbered questions: chat in its envelope and its frames, and models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.api_requests import HI, post
from tests.support.daemon import Daemon, until
from tests.support.sdk_types import faults
from tests.support.vectors import numbered
from vllamad.host.log_events import LogEvent

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


ROUTES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI},
    "/v1/completions": {"prompt": "hi"},
}


def chunks(one: Daemon, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = one.http.post(path, json=body | {"stream": True})
    assert answer.status_code == 200, answer.text
    *frames, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.case("F11", "B7")
@pytest.mark.parametrize("usage", [False, True])
def test_every_reply_is_of_the_official_sdks_types(plain: Daemon, usage: bool) -> None:
    more = {"model": "test", "stream_options": {"include_usage": usage}}
    assert ROUTES.keys() == {CHAT, "/v1/completions"}
    for path, body in ROUTES.items():
        status, answer = post(plain, path, body | {"model": "test"})
        assert status == 200
        chat = path == CHAT
        assert faults(answer, ChatCompletion if chat else Completion) == []
        sent = chunks(plain, path, body | more)
        assert sent
        for chunk in sent:
            kind, nullable = ChatCompletionChunk if chat else Completion, {"choices.finish_reason"}
            assert faults(chunk, kind, nullable=nullable) == []
        assert [chunk["choices"] for chunk in sent if "usage" in chunk] == [[]] * usage


@pytest.mark.case("F11")
def test_models_are_of_the_official_sdks_type(plain: Daemon) -> None:
    listed = plain.http.get("/v1/models").json()
    assert faults(listed["data"][0], Model) == []
    assert faults(plain.http.get("/v1/models/test").json(), Model) == []


@pytest.mark.case("F4", "B4")
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function"}])
def test_a_choice_among_no_tools_is_ignored(plain: Daemon, tools: Any, choice: Any) -> None:
    asked = ASKED | tools | {"tool_choice": choice, "parallel_tool_calls": True}
    assert post(plain, CHAT, asked)[0] == 200


OTHERS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 5},
}


@pytest.mark.case("F4", "B4", "B9")
@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("tools", [{}, {"tools": []}])
def test_the_other_apis_ignore_it_too_and_know_keys_in_any_case(
    plain: Daemon, path: str, tools: dict[str, Any]
) -> None:
    choice = {"type": "auto"} if path == "/v1/messages" else "auto"
    asked = OTHERS[path] | {"model": "test", "tool_choice": choice} | tools
    assert post(plain, path, {key.upper(): value for key, value in asked.items()})[0] == 200


ODD: list[dict[str, Any]] = [
    {"top_p": 0}, {"top_p": 1.5}, {"stop": ""}, {"stop": ["", "x"]}, {"temperature": 3},
    {"temperature": -1}, {"frequency_penalty": 3}, {"presence_penalty": -3}, {"top_k": -5},
    {"min_p": 2}, {"seed": 2**64}, {"seed": -3}, {"max_tokens": -1}, {"max_tokens": 10**9},
    {"repetition_penalty": 0}, {"min_tokens": 9, "max_tokens": 3}, {"user": 5},
]  # fmt: skip


@pytest.mark.case("F6", "B3")
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_what_is_out_of_range_is_brought_into_range(
    plain: Daemon, path: str, odd: dict[str, Any]
) -> None:
    status, answer = post(plain, path, ROUTES[path] | {"model": "test"} | odd)
    assert status == 200, answer


@pytest.mark.case("F6", "B3")
@pytest.mark.parametrize("path", ROUTES)
def test_an_answer_of_no_tokens_is_empty(plain: Daemon, path: str) -> None:
    asked = ROUTES[path] | {"model": "test", "max_tokens": 0}
    [choice] = post(plain, path, asked)[1]["choices"]
    said = choice["message"]["content"] if path == CHAT else choice["text"]
    assert (said, choice["finish_reason"]) == ("", "length")
    *_, last = chunks(plain, path, asked)
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.case("B3")
@pytest.mark.parametrize("greedy", [{"temperature": 0}, {"top_p": 0}])
def test_several_greedy_answers_are_alike(plain: Daemon, greedy: dict[str, Any]) -> None:
    assert ROUTES.keys() == {CHAT, "/v1/completions"}
    for path, body in ROUTES.items():
        asked = body | {"model": "test", "n": 3} | greedy
        choices = post(plain, path, asked)[1]["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2]
        assert len({json.dumps(choice | {"index": 0}) for choice in choices}) == 1
        indexes = [
            choice["index"] for one in chunks(plain, path, asked) for choice in one["choices"]
        ]
        assert {*indexes} == {0, 1, 2}


@pytest.mark.case("B9")
@pytest.mark.parametrize("path", ROUTES)
def test_keys_count_in_any_case(plain: Daemon, path: str) -> None:
    asked = {key.upper(): value for key, value in (ROUTES[path] | {"model": "test"}).items()}
    status, answer = post(plain, path, asked | {"Max_Tokens": 0})
    assert (status, answer["model"]) == (200, "test")
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.case("B6")
@pytest.mark.parametrize(
    ("odd", "kind", "of"),
    [({"temperature": "x"}, "string", "temperature of type float"),
     ({"max_tokens": True}, "bool", "max_tokens of type int"),
     ({"logit_bias": 5}, "number", "logit_bias of type map[string]float64"),
     ({"stream": "yes"}, "string", "stream of type bool")],
)  # fmt: skip
def test_a_wrong_type_names_the_field_and_the_type(
    plain: Daemon, odd: dict[str, Any], kind: str, of: str
) -> None:
    assert ROUTES.keys() == {CHAT, "/v1/completions"}
    for path, body in ROUTES.items():
        status, answer = post(plain, path, body | {"model": "test"} | odd)
        assert status == 400
        struct = "ChatCompletionRequest" if path == CHAT else "CompletionRequest"
        text = f"json: cannot unmarshal {kind} into Go struct field {struct}.{of}"
        assert answer["error"]["message"].startswith(text)


@pytest.mark.case("F5")
def test_tools_that_run_elsewhere_are_left_out_and_the_log_says_so_once(plain: Daemon) -> None:
    asked = ASKED | {"tools": [{"type": "web_search"}, {"type": "image_generation"}]}
    for _ in range(2):
        assert post(plain, CHAT, asked | {"tool_choice": "auto"})[0] == 200
    ignored = LogEvent.REQUEST_ITEM_IGNORED
    lines = plain.logged(ignored, model="test:latest", route="/v1/chat/completions")
    kinds = sorted(line.rpartition(" kind=")[2] for line in lines)
    assert kinds == ["image_generation", "web_search"]
