"""Error bodies have the form of their API, and contain no private text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import (
    BadInput,
    HostProblem,
    LoadFailed,
    RuntimeProblem,
    ServerBusy,
    VllamadError,
)
from vllamad.translate.engine.refusal_texts import REFUSED, TOO_LONG
from vllamad.translate.error_bodies import (
    CANNOT,
    FAILED,
    INTERNAL,
    STOPPED,
    anthropic_error,
    api_error,
    engine_refusal,
    openai_error,
    public_message,
    without_private_text,
)

OVERFLOW = (
    b'{"error":{"message":"This model\'s maximum context length is 2048 tokens. However, your '
    b'prompt contains at least 2049 input tokens","type":"BadRequestError","code":400}}'
)


def test_an_api_error_is_one_key():
    assert api_error('model "é" not found') == '{"error":"model \\"é\\" not found"}'.encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (503, "api_error")],
)
def test_an_openai_error_is_an_envelope_typed_by_status(status, kind):
    assert openai_error(status, "no") == (
        b'{"error":{"message":"no","type":"%b","param":null,"code":null}}\n' % kind.encode()
    )


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (400, b'{"error":{"message":"suffix is bad"}}', 400, REFUSED),
        (400, b'{"error":{"message":"x","param":"top_p"}}', 400, "invalid value for 'top_p'"),
        (400, OVERFLOW, 400, TOO_LONG),
        (429, b'{"error":{"message":"rate limit exceeded"}}', 429, "rate limit exceeded"),
        (503, b"rate limit exceeded", 503, "rate limit exceeded"),
        (503, b"The engine is busy", 503, ServerBusy().message),
        (404, b'{"detail":"Not Found"}', 400, CANNOT),
        (404, b'{"error":{"message":"The model `x` does not exist."}}', 500, FAILED),
        (500, b'{"error":{"message":"EngineCore encountered an issue"}}', 500, STOPPED),
        (502, b"", 500, STOPPED),
        (500, b'{"error":{"message":"Internal server error"}}', 500, INTERNAL),
        (400, b'{"error":"plain"}', 400, REFUSED),
        (400, b"{}", 400, REFUSED),
        (400, b"\xff", 400, REFUSED),
    ],
)
def test_an_engine_refusal_gets_a_message_and_status_of_ours(status, body, expected, message):
    error = engine_refusal(status, body)
    assert (error.status, error.message) == (expected, message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a\n  b", "a b"),
        ("Qwen/Qwen2 is not a multimodal model", "Qwen/Qwen2 is not a multimodal model"),
        ("cannot open /var/lib/x/model.bin now", "cannot open … now"),
        ("at 0x7f00dead", "at …"),
        ("ask http://127.0.0.1:8000/v1 pid=77", "ask … …"),
        ('File "/usr/x.py", line 1', FAILED),
        ("Traceback (most recent call last)", FAILED),
        ("", FAILED),
        ("x" * 301, "x" * 299 + "…"),
    ],
)
def test_private_text_is_removed_from_an_engines_message(message, expected):
    assert without_private_text(message) == expected


@given(st.binary(), st.integers(400, 599))
def test_any_error_body_of_the_engine_becomes_a_refusal(body, status):
    error = engine_refusal(status, body)
    assert 400 <= error.status < 600
    assert 0 < len(error.message) <= 300


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
        (500, "api_error"),
        (415, "api_error"),
    ],
)
def test_anthropic_has_a_type_for_each_status(status: int, kind: str) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "m"}}
    assert json.loads(anthropic_error(status, "m")) == body
    assert json.loads(anthropic_error(status, "m", "req_1")) == body | {"request_id": "req_1"}


@pytest.mark.parametrize("kind", [HostProblem, LoadFailed, RuntimeProblem])
def test_no_path_of_ours_reaches_a_client(kind: type[VllamadError]) -> None:
    error = kind("cannot load a: no such file: /var/lib/vllamad/x.bin at 0x7f00")
    assert public_message(error) == "cannot load a: no such file: … at …"


def test_the_words_of_a_client_come_back_unchanged_up_to_a_limit() -> None:
    assert public_message(BadInput("cannot use /a/b/c")) == "cannot use /a/b/c"
    assert len(public_message(BadInput("x" * 10_000))) == 2001
