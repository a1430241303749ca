"""Responses that only repeat themselves stop, unless the client set a limit."""

from __future__ import annotations

import pytest

from vllamad.translate.engine.repetition import LONGEST, has_limit, stop_repetition
from vllamad.translate.ollama.to_engine import CHAT, COMPLETIONS, EngineCall


def asked(path: str, repetitions: int, *, limited: bool) -> object:
    call = EngineCall(path=path, body={"model": "a"})
    ended = stop_repetition(call, repetitions, limited=limited)
    assert ended.path == path
    assert ended.body["model"] == "a"
    return ended.body.get("repetition_detection")


@pytest.mark.case("B1")
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_repetition_detection_is_added_to_the_request(path: str) -> None:
    field = {"max_pattern_size": LONGEST, "min_count": 64}
    assert asked(path, 64, limited=False) == field
    assert asked(path, 1, limited=False) == field | {"min_count": 2}, "vLLM takes no less"


@pytest.mark.case("B1")
def test_repetition_detection_is_left_out_with_a_limit_or_when_off() -> None:
    assert asked(CHAT, 64, limited=True) is None
    assert asked(CHAT, 0, limited=False) is None
    assert asked("/v1/responses", 64, limited=False) is None


@pytest.mark.parametrize(
    ("body", "context", "limited"),
    [
        ({}, 2048, False),
        ({"max_tokens": 100}, 2048, True),
        ({"max_completion_tokens": 0}, 2048, True),
        ({"max_tokens": 2048}, 2048, False),
        ({"max_tokens": -1}, 2048, False),
        ({"max_tokens": 9_999}, 0, True),
        ({"max_tokens": None}, 2048, False),
    ],
)
def test_a_limit_is_less_than_the_context(
    body: dict[str, object], context: int, limited: bool
) -> None:
    assert has_limit(body, context) == limited
