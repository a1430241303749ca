"""OpenAI's and Anthropic's APIs on the same port, against the scripted engine."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Generator
from typing import Any

import anthropic
import openai
import pytest

from tests.support.checkpoints import BERT, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from tests.support.paths import RECORDED
from vllamad.core.model_name import parse_model_name
from vllamad.host.log_events import LogEvent
from vllamad.models.store import model_store

pytestmark = pytest.mark.integration

HI = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"messages": HI}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": CHAT | {"max_tokens": 50},
    "/v1/messages/count_tokens": CHAT,
}
NAMED = ["/v1/responses", "/v1/messages"]
SCENARIOS = {
    "cut": {"cut_after": 2},
    "broken": {"error_after": 2},
    "dead": {"error_after": 0},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with a completion model for each scenario, and an embedding model."""
    home = fake_home(tmp_path_factory.mktemp("v1"), ["test", *SCENARIOS])
    folder = write_checkpoint(home / "made" / "bert", BERT)
    model_store.add_model(
        home / "state" / "models", parse_model_name("bert"), folder, source="test"
    )
    with daemon(home, config=fake_config(scenarios=SCENARIOS)) as running:
        yield running


def post(one: Daemon, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = one.http.post(path, content=content, headers=headers)
    assert answer.headers["content-type"].startswith("application/json")
    return answer.status_code, answer.json()


def stream(one: Daemon, path: str, model: str, **more: Any) -> str:
    body = ASKED[path] | {"model": model, "stream": True} | more
    answer = one.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    return answer.text


def recorded(path: str, kind: str, model: str) -> str:
    text = (RECORDED / f"{path.removeprefix('/v1/')}.{kind}").read_text()
    return text.replace('"model":"smollm2:135m"', f'"model":"{model}"')


@pytest.mark.parametrize("path", NAMED)
@pytest.mark.parametrize("model", ["test", "TEST:latest"])
def test_an_answer_is_the_engines_under_the_name_asked_for(
    one: Daemon, path: str, model: str
) -> None:
    """Event by event what the engine wrote, but for the answer as a whole: it has other keys."""
    got, wrote = (
        text.removesuffix("\n\n").split("\n\n")
        for text in (stream(one, path, model), recorded(path, "sse", model))
    )
    assert [event.split("\n")[0] for event in got] == [event.split("\n")[0] for event in wrote]
    assert sum(mine != its for mine, its in zip(got, wrote, strict=True)) <= 3
    assert "".join(got).count(f'"model":"{model}"') == "".join(wrote).count(f'"model":"{model}"')
    _, whole = post(one, path, ASKED[path] | {"model": model})
    its = json.loads(recorded(path, "json", model))
    key = {"/v1/responses": "output", "/v1/messages": "content"}[path]
    assert (whole["model"], whole[key]) == (model, its[key])


def test_what_a_client_calls_model_in_its_own_data_stays(one: Daemon) -> None:
    text = stream(one, "/v1/responses", "TEST", metadata={"model": "test:latest"})
    assert text.count('"metadata":{"model":"test:latest"}') == 3
    assert text.count('"model":"TEST"') == 3


def test_tokens_of_a_message_can_be_counted(one: Daemon) -> None:
    status, answer = post(one, "/v1/messages/count_tokens", CHAT | {"model": "test"})
    assert status == 200
    assert answer["input_tokens"] > 0


@pytest.mark.parametrize("path", NAMED)
def test_the_log_has_the_counts_of_tokens(one: Daemon, path: str) -> None:
    stream(one, path, "test")
    fields = {"model": "test:latest", "prompt_tokens": 37, "completion_tokens": 8}
    until(lambda: one.logged(LogEvent.REQUEST_DONE, path=path, **fields))


def test_keys_and_versions_of_anthropics_headers_do_not_matter(one: Daemon) -> None:
    headers = {"x-api-key": "secret", "anthropic-version": "1900-01-01", "anthropic-beta": "x"}
    status, _ = post(one, "/v1/messages", ASKED["/v1/messages"] | {"model": "test"}, **headers)
    assert status == 200


@pytest.mark.parametrize("path", NAMED)
@pytest.mark.parametrize("model", ["cut", "broken"])
def test_an_engine_that_breaks_off_is_an_error_event_and_no_end(
    one: Daemon, path: str, model: str
) -> None:
    *_, last, rest = stream(one, path, model).split("\n\n")
    assert rest == ""
    assert last.startswith("event: error\n")
    error = json.loads(last.partition("data: ")[2])["error"]
    assert error["message"].startswith("model runner has unexpectedly stopped")
    assert error["type"] == "api_error"


@pytest.mark.parametrize("model", ["cut", "broken"])
def test_the_official_clients_raise_when_an_engine_breaks_off(one: Daemon, model: str) -> None:
    with anthropic.Anthropic(base_url=one.url, api_key="none", max_retries=0) as client:
        messages = client.messages.create(
            model=model, max_tokens=50, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        with pytest.raises(anthropic.APIError, match="unexpectedly stopped"):
            list(messages)
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
        chat = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        for answer in (client.responses.create(model=model, input="hi", stream=True), chat):
            with pytest.raises(openai.APIError, match="unexpectedly stopped"):
                list(answer)


def openai_error(kind: str, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": kind, "param": None, "code": None}}


def anthropic_error(kind: str, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}}


def refusal(path: str, status: int, text: str) -> dict[str, Any]:
    """What `path` answers with that status."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    if not path.startswith("/v1/messages"):
        return openai_error(kind, text)
    return anthropic_error(kind, text)


NO_TOOLS = "registry.ollama.ai/library/test:latest does not support tools"
FUNCTION = {"type": "function", "name": "f", "function": {"name": "f"}, "input_schema": {}}


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"model": None}, 400, "model is required"),
    ({"model": "nope"}, 404, "model 'nope' not found"),
    ({"model": "a b"}, 400, "invalid model name"),
    ({"model": "test:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ({"tools": [FUNCTION | {"type": "custom"}]}, 400, NO_TOOLS),
]


@pytest.mark.parametrize(
    ("path", "more", "status", "text"),
    [
        (path, *case)
        for path in ASKED
        for case in REFUSED
        if "tools" not in case[0] or path != "/v1/completions"
    ],
)
def test_each_api_refuses_in_its_own_form(
    one: Daemon, path: str, more: dict[str, Any], status: int, text: str
) -> None:
    got, answer = post(one, path, {"model": "test"} | ASKED[path] | more)
    request_id = answer.pop("request_id", None)
    if status == 403 and path.startswith("/v1/messages"):
        assert answer == anthropic_error("permission_error", text)
    else:
        assert answer == refusal(path, status, text)
    assert got == status
    assert (request_id is not None) == path.startswith("/v1/messages")
    assert re.fullmatch("req_[0-9a-f]{24}", request_id or f"req_{'0' * 24}")


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model":NaN}'])
def test_a_bad_body_is_400_in_the_form_of_the_api(one: Daemon, path: str, body: bytes) -> None:
    status, answer = post(one, path, body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert body or answer["error"]["message"] == "EOF"


@pytest.mark.vector(70)
def test_70_a_message_needs_a_limit(one: Daemon) -> None:
    status, answer = post(one, "/v1/messages", CHAT | {"model": "test"})
    text = "max_tokens is required and must be positive"
    assert status == 400
    assert re.fullmatch("req_[0-9a-f]{24}", answer.pop("request_id"))
    assert answer == anthropic_error("invalid_request_error", text)


@pytest.mark.parametrize("path", ASKED)
def test_a_model_that_only_embeds_is_not_loaded_to_talk(one: Daemon, path: str) -> None:
    status, answer = post(one, path, ASKED[path] | {"model": "bert"})
    verb = "generate" if path == "/v1/completions" else "chat"
    answer.pop("request_id", None)
    assert status == 400
    assert answer == refusal(path, 400, f'"bert" does not support {verb}')
    assert "bert" not in one.http.get("/api/ps").text


def test_a_failure_before_the_first_word_of_a_message_is_still_an_event(one: Daemon) -> None:
    # The engine begins with a head of its own, so it is too late for a status.
    assert stream(one, "/v1/messages", "dead").count("event: error\n") == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/render"),
        ("POST", "/v1/chat/completions/batch"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/realtime"),
        ("POST", "/v1/%2e%2e/tokenize"),
    ],
)
def test_what_is_not_served_is_404_in_the_form_of_the_api(
    one: Daemon, method: str, path: str
) -> None:
    # As a whole URL it goes out as it stands.
    answer = one.http.request(method, one.url + path, json={})
    assert answer.status_code == 404
    if path.startswith("/v1/"):
        assert answer.json()["error"]["type"] == "not_found_error"
        assert ("request_id" in answer.json()) == path.startswith("/v1/messages")


@pytest.mark.parametrize(
    "path",
    ["/tokenize", "/invocations", "/pause", "/collective_rpc", "/pooling", "//tokenize",
     "/v1/../tokenize", "/api/%2e%2e/tokenize"],
)  # fmt: skip
def test_the_engines_own_routes_are_not_ours(one: Daemon, path: str) -> None:
    assert one.http.post(one.url + path, json={}).status_code == 404


@pytest.mark.parametrize("target", ["POST /v1/nope", "PUT /v1/messages"])
def test_a_refusal_waits_for_a_small_body_so_the_connection_can_go_on(
    one: Daemon, target: str
) -> None:
    with socket.create_connection(("127.0.0.1", one.port), timeout=20) as sock:
        sock.sendall(f"{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n".encode())
        threading.Event().wait(0.2)  # a client that writes its body after a thought
        sock.sendall(b"{}GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b'{"version":' in answers


def test_a_wrong_method_is_405(one: Daemon) -> None:
    answer = one.http.get("/v1/messages")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
