"""Ollama's own API, request by request, against a running gateway with the scripted engine."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from tests.support.api_requests import JSON, post
from tests.support.daemon import Daemon, until
from tests.support.vectors import numbered
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration

EMPTY = {"role": "assistant", "content": ""}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@pytest.mark.vector(1)
def test_1_the_root_says_that_ollama_is_running(plain: Daemon) -> None:
    answer = plain.http.get("/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    head = plain.http.head("/")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.vector(2)
def test_2_the_version_is_digits_and_dots(plain: Daemon) -> None:
    answer = plain.http.get("/api/version")
    assert re.fullmatch(r'\{"version":"\d+\.\d+\.\d+"\}', answer.text)
    assert answer.headers["content-type"] == JSON


def test_tags_lists_what_is_installed_with_all_its_keys(plain: Daemon) -> None:
    [model] = plain.http.get("/api/tags").json()["models"]
    assert list(model) == [
        "name", "model", "modified_at", "size", "digest", "details", "capabilities",
    ]  # fmt: skip
    assert model["name"] == model["model"] == "test:latest"
    assert re.fullmatch("[0-9a-f]{64}", model["digest"])
    assert list(model["details"]) == [
        "parent_model", "format", "family", "families", "parameter_size", "quantization_level",
        "context_length", "embedding_length",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/show", "POST"),
        ("POST", "/api/tags", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("PUT", "/api/chat", "POST"),
        ("GET", f"/api/blobs/sha256:{'0' * 64}", "HEAD, POST"),
    ],
)
@pytest.mark.vector(6)
def test_6_a_wrong_method_is_told_the_right_ones(
    plain: Daemon, method: str, path: str, allow: str
) -> None:
    answer = plain.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.headers["content-type"].startswith("text/plain")
    if method != "HEAD":
        assert answer.text == "405 method not allowed"


@pytest.mark.vector(7)
@pytest.mark.parametrize("path", ["/nope", "/api/nope", "/api", "/api/chat/x"])
def test_7_an_unknown_path_is_404_as_text(plain: Daemon, path: str) -> None:
    answer = plain.http.get(path)
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-type"] == "text/plain"
    assert plain.http.get("/v1/nope").json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/tags/", 301), ("POST", "/api/chat/", 307)],
)
@pytest.mark.vector(8)
def test_8_a_trailing_slash_is_led_to_the_route(
    plain: Daemon, method: str, path: str, status: int
) -> None:
    answer = plain.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["location"] == path.rstrip("/")


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    numbered(
        (14, "/api/generate", b'{"MODEL":"test"} trailing', "load"),
        (26, "/api/generate", {"model": "TEST:Latest"}, "load"),
        (27, "/api/generate", {"model": "test"}, "load"),
        (28, "/api/generate", {"model": "test", "keep_alive": 0}, "unload"),
        (28, "/api/generate", {"model": "test", "keep_alive": 0.0, "prompt": ""}, "unload"),
        (29, "/api/chat", {"model": "test", "messages": []}, "load"),
        (29, "/api/chat", {"model": "test", "messages": [], "keep_alive": "0s"}, "unload"),
        (29, "/api/chat", {"model": "test", "keep_alive": "-1m"}, "load"),
    ),
)
def test_14_26_to_29_nothing_to_answer_loads_or_unloads(
    plain: Daemon, path: str, body: Any, reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = plain.http.post(path, content=content)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    assert not answer.text.endswith("\n")
    told = answer.json()
    said = ["response"] if path == "/api/generate" else ["message"]
    assert list(told) == ["model", "created_at", *said, "done", "done_reason"]
    assert told["done_reason"] == reason
    assert told["model"] == (body["model"] if isinstance(body, dict) else "test")
    assert told.get("response", "") == ""
    assert told.get("message", EMPTY) == EMPTY
    assert STAMP.fullmatch(told["created_at"])


@pytest.mark.vector(28)
def test_28_an_unload_loads_nothing(plain: Daemon) -> None:
    body = {"model": "test", "keep_alive": 0}
    post(plain, "/api/generate", body)
    until(lambda: plain.workers() == [])
    starts = plain.logged(LogEvent.WORKER_STARTING)
    assert post(plain, "/api/generate", body)[1]["done_reason"] == "unload"
    assert plain.workers() == []
    assert plain.logged(LogEvent.WORKER_STARTING) == starts


@pytest.mark.vector(30)
@pytest.mark.parametrize("keep_alive", [42, 42.5, -1, "42m", "-1m", "0", None])
def test_30_durations_that_are_taken(plain: Daemon, keep_alive: object) -> None:
    assert plain.chat("test", keep_alive=keep_alive).status_code == 200


@pytest.mark.parametrize("name", ["test", "TEST:Latest", "test:latest:local"])
def test_the_model_is_echoed_as_it_was_sent(plain: Daemon, name: str) -> None:
    assert plain.chat(name).json()["model"] == name


@pytest.mark.vector(31)
def test_31_for_ever_is_a_date_far_ahead_and_sticks(plain: Daemon) -> None:
    plain.chat("test", keep_alive=-1)
    plain.chat("test")
    [loaded] = plain.http.get("/api/ps").json()["models"]
    assert int(loaded["expires_at"][:4]) > 2300
    assert list(loaded) == [
        "name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length",
    ]  # fmt: skip
    assert isinstance(loaded["size"], int)
    assert loaded["size_vram"] == 0
    plain.chat("test", keep_alive="5m")


@pytest.mark.vector(42)
def test_42_the_lines_of_a_streamed_chat(plain: Daemon) -> None:
    with plain.streaming("test") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines()]
    assert list(lines[0]) == ["model", "created_at", "message", "done"]
    assert lines[0]["message"] == {"role": "assistant", "content": "The"}
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert list(lines[-1]) == [
        "model", "created_at", "message", "done", "done_reason", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
        "eval_duration",
    ]  # fmt: skip
    assert lines[-1]["message"] == EMPTY
    assert lines[-1]["done_reason"] == "stop"
    assert all(isinstance(value, int) for value in list(lines[-1].values())[5:])


@pytest.mark.vector(44)
def test_44_generate_answers_under_its_own_key(plain: Daemon) -> None:
    status, answer = post(plain, "/api/generate", {"model": "test", "prompt": "x", "stream": False})
    assert status == 200
    assert answer["response"] == "The capital of France is Paris."
    raw = {"model": "test", "prompt": "x", "stream": False, "raw": True}
    assert post(plain, "/api/generate", raw)[1]["done_reason"] == "stop"


@pytest.mark.parametrize(
    "neutral",
    numbered(
        (0, {"tools": []}), (41, {"format": ""}), (0, {"format": None}), (0, {"options": None}),
        (0, {"options": {}}), (0, {"options": {"temperature": None}}),
        (40, {"options": {"bogus": 1, "mirostat": 2}}), (0, {"think": None}),
        (36, {"think": False}), (0, {"keep_alive": None}), (0, {"stream": False}),
        (0, {"options": {"num_ctx": 1_000_000}}),
    ),
)  # fmt: skip
def test_neutral_values_change_nothing(plain: Daemon, neutral: dict[str, Any]) -> None:
    assert plain.chat("test", **neutral).json()["done"] is True


@pytest.mark.vector(60)
def test_60_show_reads_the_models_files_and_loads_nothing(plain: Daemon) -> None:
    plain.http.post("/api/generate", json={"model": "test", "keep_alive": 0})
    until(lambda: plain.http.get("/api/ps").json() == {"models": []})
    status, shown = post(plain, "/api/show", {"name": "test"})
    assert status == 200
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["llama.context_length"] == 8192
    assert shown["capabilities"] == ["completion"]
    assert shown["details"]["format"] == "safetensors"
    assert plain.http.get("/api/ps").json() == {"models": []}


@pytest.mark.case("B12")
def test_show_lists_the_tensors_of_the_checkpoint_where_it_is_asked_to(plain: Daemon) -> None:
    _, shown = post(plain, "/api/show", {"model": "test", "verbose": True})
    assert shown["tensors"] == [{"name": "embed.weight", "type": "BF16", "shape": [16, 4]}]
    assert "tensors" not in post(plain, "/api/show", {"model": "test"})[1]
    assert "embed.weight    BF16    [16 4]" in plain.ctl("show", "-v", "test")
    assert "embed.weight" not in plain.ctl("show", "test")


def test_a_body_over_the_limit_is_refused_with_the_limit(plain: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", plain.port), timeout=20) as sock:
        sock.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))  # and it closes
    assert b" 413 " in answer.splitlines()[0] + b" "
    assert b"33554432" in answer


def test_a_question_in_many_languages_comes_back_whole(plain: Daemon) -> None:
    answer = plain.chat("test", 'ünï "quoted" \\ 漢字 🙂 \u2028 </script>')
    assert answer.status_code == 200
