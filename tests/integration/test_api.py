"""Ollama's contract, request by request, against a running gateway with the scripted engine.

The numbers in the names of the cases are those of the test vectors the issue's contract lists.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Generator
from typing import Any

import pytest

from tests.daemon import Daemon, daemon, fake_config, fake_home, until

pytestmark = pytest.mark.integration

JSON = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "", "parameters": {"type": "object"}},
}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `test` (completion only), shared by every test here."""
    home = fake_home(tmp_path_factory.mktemp("api"), ["test"])
    with daemon(home, config=fake_config()) as running:
        yield running


def post(one: Daemon, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Post JSON, or bytes as they are; the status and the decoded answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = one.http.post(path, content=content, headers={"content-type": FORM, **headers})
    return answer.status_code, answer.json()


def refusal(text: str) -> dict[str, str]:
    return {"error": text}


def test_1_the_root_says_that_ollama_is_running(one: Daemon) -> None:
    answer = one.http.get("/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    head = one.http.head("/")
    assert (head.status_code, head.content) == (200, b"")


def test_2_the_version_is_digits_and_dots(one: Daemon) -> None:
    answer = one.http.get("/api/version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json()["version"])
    assert answer.headers["content-type"] == JSON


def test_tags_lists_what_is_installed_with_all_its_keys(one: Daemon) -> None:
    [model] = one.http.get("/api/tags").json()["models"]
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
    ],
)
def test_6_a_wrong_method_is_told_the_right_ones(
    one: Daemon, method: str, path: str, allow: str
) -> None:
    answer = one.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.headers["content-type"].startswith("text/plain")
    if method != "HEAD":
        assert answer.text == "405 method not allowed"


def test_7_unknown_paths_are_404_in_json_where_programs_ask(one: Daemon) -> None:
    assert one.http.get("/nope").text == "404 page not found"
    answer = one.http.get("/api/nope")
    assert answer.status_code == 404
    assert "error" in answer.json()
    assert one.http.get("/v1/nope").json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/tags/", 301), ("POST", "/api/chat/", 307)],
)
def test_8_a_trailing_slash_is_led_to_the_route(
    one: Daemon, method: str, path: str, status: int
) -> None:
    answer = one.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["location"] == path.rstrip("/")


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/show"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "missing request body"),
        (b"  \n", "missing request body"),
        (b"{", "unexpected EOF"),
        (b"{'a':1}", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"model":NaN}', None),
    ],
)
def test_9_10_a_bad_body_is_400(one: Daemon, path: str, body: bytes, text: str | None) -> None:
    status, answer = post(one, path, body)
    assert status == 400
    assert isinstance(answer["error"], str)
    assert text in (None, answer["error"])


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        # 11, 12
        ("/api/generate", {"model": 1}, 400,
         "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string"),
        ("/api/generate", [], 400,
         "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        # 13, 18
        ("/api/generate", None, 404, "model '' not found"),
        ("/api/chat", None, 400, "model is required"),
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/chat", {}, 400, "model is required"),
        # 15, 16, 17
        ("/api/chat", {"model": "test", "messages": [{"role": "user", "content": [{}]}]}, 400,
         "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type"
         " string"),
        ("/api/chat", {"model": "test", "messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a":1}'}}]}]}, 400,
         "Value looks like object, but can't find closing '}' symbol"),
        ("/api/generate",
         {"model": "test", "prompt": "x", "images": ["data:image/png;base64,aGk="]}, 400,
         "illegal base64 data at input byte 4"),
        # 19, 20, 21
        ("/api/chat", {"model": "a b"}, 400, "invalid model name"),
        ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        ("/api/show", {}, 400, "model is required"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        # 24, 25
        ("/api/chat", {"model": "test:cloud:local"}, 400,
         'use either :local or :cloud, not both: "test:cloud:local"'),
        ("/api/chat", {"model": "test:cloud", "messages": HI}, 403,
         "ollama cloud is disabled: remote model is unavailable"),
        ("/api/show", {"model": "test:cloud"}, 403,
         "ollama cloud is disabled: remote model details are unavailable"),
        # 30
        ("/api/generate", {"model": "test", "keep_alive": "5"}, 400,
         'time: missing unit in duration "5"'),
        ("/api/generate", {"model": "test", "keep_alive": "1d"}, 400,
         'time: unknown unit "d" in duration "1d"'),
        ("/api/generate", {"model": "test", "keep_alive": True}, 400, "Unsupported type: 'bool'"),
        # 34 to 41
        ("/api/generate", {"model": "test", "prompt": "def add(", "suffix": "return c"}, 400,
         "registry.ollama.ai/library/test:latest does not support insert"),
        ("/api/chat", {"model": "test", "messages": HI, "tools": [TOOL]}, 400,
         "registry.ollama.ai/library/test:latest does not support tools"),
        ("/api/chat", {"model": "test", "messages": HI, "think": True}, 400,
         '"test" does not support thinking'),
        ("/api/generate", {"model": "test", "prompt": "x", "think": "low"}, 400,
         '"test" does not support thinking'),
        ("/api/chat", {"model": "test", "messages": HI, "think": "yes"}, 400,
         'invalid think value: "yes" (must be "high", "medium", "low", "max", true, or false)'),
        ("/api/chat", {"model": "test", "messages": HI, "think": 1}, 400,
         'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
        ("/api/chat", {"model": "nope", "top_logprobs": 21}, 400,
         "top_logprobs must be between 0 and 20"),
        ("/api/generate", {"model": "nope", "top_logprobs": -1}, 400,
         "top_logprobs must be between 0 and 20"),
        ("/api/generate", {"model": "test", "prompt": "x", "raw": True, "system": "x"}, 400,
         "raw mode does not support template, system, or context"),
        ("/api/chat", {"model": "test", "messages": HI, "options": {"temperature": "0.5"}}, 500,
         'option "temperature" must be of type float32'),
        ("/api/chat", {"model": "test", "messages": HI, "options": {"stop": "x"}}, 500,
         'option "stop" must be of type array'),
        ("/api/chat", {"model": "test", "messages": HI, "options": {"stop": ["a", 1]}}, 500,
         'option "stop" must be of an array of strings'),
        ("/api/chat", {"model": "test", "messages": HI, "format": "xml"}, 500,
         'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    ],
)  # fmt: skip
def test_refusals_have_ollamas_status_and_words(
    one: Daemon, path: str, body: object, status: int, text: str
) -> None:
    assert post(one, path, body) == (status, refusal(text))


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/generate", b'{"MODEL":"test"} trailing', "load"),
        ("/api/generate", {"model": "TEST:Latest"}, "load"),
        ("/api/generate", {"model": "test"}, "load"),
        ("/api/generate", {"model": "test", "keep_alive": 0}, "unload"),
        ("/api/generate", {"model": "test", "keep_alive": 0.0, "prompt": ""}, "unload"),
        ("/api/chat", {"model": "test", "messages": []}, "load"),
        ("/api/chat", {"model": "test", "messages": [], "keep_alive": "0s"}, "unload"),
        ("/api/chat", {"model": "test", "keep_alive": "-1m"}, "load"),
    ],
)
def test_14_26_to_29_nothing_to_answer_loads_or_unloads(
    one: Daemon, path: str, body: Any, reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = one.http.post(path, content=content)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    assert not answer.text.endswith("\n")
    told = answer.json()
    said = ["response"] if path == "/api/generate" else ["message"]
    assert list(told) == ["model", "created_at", *said, "done", "done_reason"]
    assert told["done_reason"] == reason
    assert STAMP.fullmatch(told["created_at"])


def test_the_model_is_echoed_as_it_was_sent(one: Daemon) -> None:
    for name in ("test", "TEST:Latest", "test:latest:local"):
        assert one.chat(name).json()["model"] == name


def test_31_for_ever_is_a_date_far_ahead_and_sticks(one: Daemon) -> None:
    one.chat("test", keep_alive=-1)
    one.chat("test")
    [loaded] = one.http.get("/api/ps").json()["models"]
    assert int(loaded["expires_at"][:4]) > 2300
    assert list(loaded) == [
        "name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length",
    ]  # fmt: skip
    assert isinstance(loaded["size"], int)
    assert loaded["size_vram"] == 0
    one.chat("test", keep_alive="5m")


def test_42_a_streamed_chat_has_the_contracts_lines(one: Daemon) -> None:
    with one.streaming("test") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines()]
    assert list(lines[0]) == ["model", "created_at", "message", "done"]
    assert list(lines[0]["message"]) == ["role", "content"]
    assert list(lines[-1]) == [
        "model", "created_at", "message", "done", "done_reason", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
        "eval_duration",
    ]  # fmt: skip
    assert all(isinstance(value, int) for value in list(lines[-1].values())[5:])


def test_44_generate_answers_under_its_own_key(one: Daemon) -> None:
    status, answer = post(one, "/api/generate", {"model": "test", "prompt": "x", "stream": False})
    assert status == 200
    assert answer["response"] == "The capital of France is Paris."
    raw = {"model": "test", "prompt": "x", "stream": False, "raw": True}
    assert post(one, "/api/generate", raw)[1]["done_reason"] == "stop"


@pytest.mark.parametrize(
    "neutral",
    [
        {"tools": []}, {"format": ""}, {"format": None}, {"options": None}, {"options": {}},
        {"options": {"temperature": None}}, {"options": {"bogus": 1, "mirostat": 2}},
        {"think": None}, {"think": False}, {"keep_alive": None}, {"stream": False},
        {"options": {"num_ctx": 1_000_000}},
    ],
)  # fmt: skip
def test_neutral_values_change_nothing(one: Daemon, neutral: dict[str, Any]) -> None:
    assert one.chat("test", **neutral).json()["done"] is True


def test_60_show_reads_the_models_files_and_loads_nothing(one: Daemon) -> None:
    one.http.post("/api/generate", json={"model": "test", "keep_alive": 0})
    until(lambda: one.http.get("/api/ps").json() == {"models": []})
    status, shown = post(one, "/api/show", {"name": "test"})
    assert status == 200
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["llama.context_length"] == 8192
    assert shown["capabilities"] == ["completion"]
    assert shown["details"]["format"] == "safetensors"
    assert one.http.get("/api/ps").json() == {"models": []}


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("app://obsidian.md", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("chrome-extension://abc", 403),
    ],
)
def test_61_a_foreign_web_page_is_refused(one: Daemon, origin: str, status: int) -> None:
    answer = one.http.get("/api/tags", headers={"Origin": origin})
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]
    else:
        assert answer.content == b""


def test_62_a_preflight_is_answered(one: Daemon) -> None:
    answer = one.http.options("/api/chat", headers={"Origin": "http://127.0.0.1:8080"})
    assert answer.status_code == 204
    assert answer.headers["access-control-max-age"] == "43200"
    assert "X-Stainless-Lang" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models", "/nope"])
def test_63_a_foreign_host_is_refused_on_every_path(one: Daemon, path: str) -> None:
    assert one.http.get(path, headers={"Host": "evil.example"}).status_code == 403
    assert one.http.get("/", headers={"Host": "foo.local:11434"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "text", "kind"),
    [
        ({"model": "test", "messages": []}, 400, "[] is too short - 'messages'",
         "invalid_request_error"),
        ({"model": "nope", "messages": HI}, 404, "model 'nope' not found", "not_found_error"),
        (b"", 400, "EOF", "invalid_request_error"),
        ({"messages": HI}, 400, "model is required", "invalid_request_error"),
    ],
)  # fmt: skip
def test_64_65_openai_refusals_have_their_own_envelope(
    one: Daemon, body: Any, status: int, text: str, kind: str
) -> None:
    assert post(one, "/v1/chat/completions", body) == (
        status,
        {"error": {"message": text, "type": kind, "param": None, "code": None}},
    )


def test_67_openai_streams_end_in_done(one: Daemon) -> None:
    body = {"model": "test", "messages": HI, "stream": True}
    answer = one.http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.rstrip("\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert {json.loads(event[6:])["model"] for event in events[:-1]} == {"test"}


def test_openai_usage_is_streamed_to_who_asks_and_logged_for_everyone(one: Daemon) -> None:
    body: dict[str, Any] = {"model": "test", "messages": HI, "stream": True}
    assert '"choices":[]' not in one.http.post("/v1/chat/completions", json=body).text
    body["stream_options"] = {"include_usage": True}
    assert '"choices":[]' in one.http.post("/v1/chat/completions", json=body).text
    until(lambda: len(re.findall(r"/v1/chat.*completion_tokens=\d+", one.text())) >= 2)


def test_69_openai_lists_models(one: Daemon) -> None:
    [model] = one.http.get("/v1/models").json()["data"]
    assert model["id"] == "test:latest"
    assert model["owned_by"] == "library"
    assert one.http.get("/v1/models/test").json()["id"] == "test"
    assert one.http.get("/v1/models/no/pe").json()["error"]["type"] == "not_found_error"


def test_a_compressed_body_is_refused_in_words(one: Daemon) -> None:
    status, answer = post(one, "/api/chat", b"\x1f\x8b", **{"content-encoding": "gzip"})
    assert status == 415
    assert "gzip" in answer["error"]


def test_a_body_over_the_limit_is_refused_with_the_limit(one: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", one.port), timeout=20) as sock:
        sock.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))  # and it closes
    assert b" 413 " in answer.splitlines()[0] + b" "
    assert b"33554432" in answer


def test_a_question_in_many_languages_comes_back_whole(one: Daemon) -> None:
    answer = one.chat("test", 'ünï "quoted" \\ 漢字 🙂 \u2028 </script>')
    assert answer.status_code == 200
