"""What is refused, with Ollama's status and in its words, before any engine is asked."""

from __future__ import annotations

import pytest

from tests.support.api_requests import HI, JSON, post, refusal
from tests.support.daemon import Daemon
from tests.support.vectors import numbered

pytestmark = pytest.mark.integration

TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "", "parameters": {"type": "object"}},
}
WANT_BODIES = [
    "generate", "chat", "embed", "embeddings", "show", "pull", "push", "create", "copy", "delete",
]  # fmt: skip


@pytest.mark.vector(9)
@pytest.mark.parametrize("path", WANT_BODIES)
@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_9_no_body(plain: Daemon, path: str, body: bytes) -> None:
    method = "DELETE" if path == "delete" else "POST"
    answer = plain.http.request(method, f"/api/{path}", content=body)
    assert (answer.status_code, answer.text) == (400, '{"error":"missing request body"}')
    assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/show"])
@pytest.mark.parametrize(
    ("body", "text"),
    numbered(
        (10, b"{", "unexpected EOF"),
        (0, b"{'a':1}", None),
        (0, b"\xff\xfe", None),
        (0, b"[" * 100_000, None),
        (0, b'{"model":NaN}', None),
    ),
)
def test_a_bad_body_is_400(plain: Daemon, path: str, body: bytes, text: str | None) -> None:
    status, answer = post(plain, path, body)
    assert status == 400
    assert isinstance(answer["error"], str)
    assert text in (None, answer["error"])


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    numbered(
        (11, "/api/generate", {"model": 1}, 400,
         "json: cannot unmarshal number into Go struct field GenerateRequest.model of type string"),
        (12, "/api/generate", [], 400,
         "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        (13, "/api/generate", None, 404, "model '' not found"),
        (13, "/api/chat", None, 400, "model is required"),
        (18, "/api/generate", {}, 404, "model '' not found"),
        (18, "/api/chat", {}, 400, "model is required"),
        (15, "/api/chat", {"model": "test", "messages": [{"role": "user", "content": [{}]}]}, 400,
         "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type"
         " string"),
        (16, "/api/chat", {"model": "test", "messages": [{"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a":1}'}}]}]}, 400,
         "Value looks like object, but can't find closing '}' symbol"),
        (17, "/api/generate",
         {"model": "test", "prompt": "x", "images": ["data:image/png;base64,aGk="]}, 400,
         "illegal base64 data at input byte 4"),
        (19, "/api/chat", {"model": "a b"}, 400, "invalid model name"),
        (20, "/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
        (21, "/api/show", {}, 400, "model is required"),
        (21, "/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        (24, "/api/chat", {"model": "test:cloud:local"}, 400,
         'use either :local or :cloud, not both: "test:cloud:local"'),
        (25, "/api/chat", {"model": "test:cloud", "messages": HI}, 403,
         "ollama cloud is disabled: remote model is unavailable"),
        (25, "/api/show", {"model": "test:cloud"}, 403,
         "ollama cloud is disabled: remote model details are unavailable"),
        (30, "/api/generate", {"model": "test", "keep_alive": "5"}, 400,
         'time: missing unit in duration "5"'),
        (30, "/api/generate", {"model": "test", "keep_alive": "1d"}, 400,
         'time: unknown unit "d" in duration "1d"'),
        (30, "/api/generate", {"model": "test", "keep_alive": True}, 400,
         "Unsupported type: 'bool'"),
        (34, "/api/generate", {"model": "test", "prompt": "def add(", "suffix": "return c"}, 400,
         "registry.ollama.ai/library/test:latest does not support insert"),
        (35, "/api/chat", {"model": "test", "messages": HI, "tools": [TOOL]}, 400,
         "registry.ollama.ai/library/test:latest does not support tools"),
        (36, "/api/chat", {"model": "test", "messages": HI, "think": True}, 400,
         '"test" does not support thinking'),
        (36, "/api/generate", {"model": "test", "prompt": "x", "think": "low"}, 400,
         '"test" does not support thinking'),
        (37, "/api/chat", {"model": "test", "messages": HI, "think": "yes"}, 400,
         'invalid think value: "yes" (must be "high", "medium", "low", "max", true, or false)'),
        (37, "/api/chat", {"model": "test", "messages": HI, "think": 1}, 400,
         'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
        (38, "/api/chat", {"model": "nope", "top_logprobs": 21}, 400,
         "top_logprobs must be between 0 and 20"),
        (38, "/api/generate", {"model": "nope", "top_logprobs": -1}, 400,
         "top_logprobs must be between 0 and 20"),
        (39, "/api/generate", {"model": "test", "prompt": "x", "raw": True, "system": "x"}, 400,
         "raw mode does not support template, system, or context"),
        (40, "/api/chat", {"model": "test", "messages": HI, "options": {"temperature": "0.5"}}, 500,
         'option "temperature" must be of type float32'),
        (40, "/api/chat", {"model": "test", "messages": HI, "options": {"stop": "x"}}, 500,
         'option "stop" must be of type array'),
        (40, "/api/chat", {"model": "test", "messages": HI, "options": {"stop": ["a", 1]}}, 500,
         'option "stop" must be of an array of strings'),
        (41, "/api/chat", {"model": "test", "messages": HI, "format": "xml"}, 500,
         'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
    ),
)  # fmt: skip
def test_refusals_have_ollamas_status_and_words(
    plain: Daemon, path: str, body: object, status: int, text: str
) -> None:
    assert post(plain, path, body) == (status, refusal(text))
