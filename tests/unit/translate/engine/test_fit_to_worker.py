"""The changes that a model and its worker require in a relayed request."""

from __future__ import annotations

import msgspec
import pytest

from vllamad.errors import NotSupported
from vllamad.translate.engine.fit_to_worker import (
    AnswerForm,
    check_media,
    check_tools,
    fit_to_worker,
    take_answer_form,
)
from vllamad.translate.ollama.to_engine import ModelTraits

PLAIN = ModelTraits(full_name="host/library/m:latest", capabilities=frozenset({"completion"}))
THINKS = ModelTraits(full_name="m", capabilities=frozenset({"completion", "thinking"}))
CALLS = ModelTraits(full_name="m", capabilities=frozenset({"completion", "tools"}))


def fit(traits: ModelTraits = PLAIN, length: int = 100, **body: object) -> dict[str, object]:
    fields = fit_to_worker(body, traits, served_name="served", context_length=length)
    assert fields.pop("model") == "served"
    return fields


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [(1, 1), (100, 100), (101, 100), (-1, 100), (-2, 100), (0, 0), ("x", "x"), (2.5, 2.5)],
)
def test_token_limits_are_capped_at_the_context_length(name, limit, kept):
    assert fit(**{name: limit}) == {name: kept}


@pytest.mark.parametrize(
    ("part", "kind"),
    [({"type": "image_url"}, "image"), ({"type": "input_image"}, "image"),
     ({"type": "image"}, "image"), ({"type": "input_audio"}, "audio"),
     ({"type": "tool_result", "content": [{"type": "image"}]}, "image"),
     ({"type": "function_call_output", "output": [{"type": "input_image"}]}, "image")],
)  # fmt: skip
@pytest.mark.parametrize("field", ["messages", "input"])
def test_media_are_refused_for_a_model_without_the_capability(part, kind, field) -> None:
    said: list[object] = [{"role": "user", "content": "x"}, {"content": [{"type": "text"}, part]}]
    body: dict[str, object] = {field: said}
    with pytest.raises(NotSupported, match=f"this model does not support {kind} input"):
        check_media(body, PLAIN)
    able = frozenset({"completion", "vision" if kind == "image" else "audio"})
    check_media(body, msgspec.structs.replace(PLAIN, capabilities=able))


def test_min_tokens_never_exceed_the_token_limit() -> None:
    assert fit(max_tokens=5, min_tokens=9) == {"max_tokens": 5, "min_tokens": 5}
    assert fit(max_tokens=5, min_tokens=2) == {"max_tokens": 5, "min_tokens": 2}


@pytest.mark.case("B3")
@pytest.mark.parametrize(
    ("client_body", "engine_body", "form"),
    [
        ({}, {}, AnswerForm()),
        ({"n": 3, "temperature": 0}, {"n": 1, "temperature": 0}, AnswerForm(copies=3)),
        ({"n": 3, "temperature": 0.5}, {"n": 3, "temperature": 0.5}, AnswerForm()),
        ({"n": 1, "temperature": 0}, {"n": 1, "temperature": 0}, AnswerForm()),
        ({"max_tokens": 0}, {"max_tokens": 1}, AnswerForm(muted=True)),
        ({"max_tokens": 5, "max_completion_tokens": 0},
         {"max_tokens": 5, "max_completion_tokens": 1}, AnswerForm(muted=True)),
        ({"max_tokens": 0, "max_completion_tokens": 5},
         {"max_tokens": 1, "max_completion_tokens": 5}, AnswerForm()),
        ({"max_output_tokens": 0}, {"max_output_tokens": 1}, AnswerForm()),
        ({"max_tokens": 0, "echo": True}, {"max_tokens": 0, "echo": True}, AnswerForm()),
    ],
)  # fmt: skip
def test_unsupported_counts_are_applied_to_the_response(client_body, engine_body, form) -> None:
    assert take_answer_form(client_body) == (engine_body, form)


def test_an_unknown_context_limits_nothing():
    assert fit(length=0, max_tokens=9) == {"max_tokens": 9}


@pytest.mark.parametrize(
    "wish",
    [{"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": {"type": "disabled"}}],
)
def test_thinking_is_removed_for_a_model_without_it(wish):
    assert fit(**wish) == {}


def switch(on: bool) -> dict[str, object]:
    return {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}}


@pytest.mark.parametrize(
    ("wish", "sent"),
    [
        ({}, {}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"} | switch(True)),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none"} | switch(False)),
        ({"reasoning": {"effort": "none"}}, {"reasoning": {"effort": "none"}} | switch(False)),
        ({"reasoning": {"effort": None}}, {"reasoning": {"effort": None}}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}} | switch(False)),
        ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}} | switch(True)),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}},
         {"thinking": {"type": "adaptive"}} | switch(True)),
        ({"thinking": 1}, {"thinking": 1}),
    ],
)  # fmt: skip
def test_thinking_is_switched_under_both_template_names(wish, sent):
    assert fit(THINKS, **wish) == sent


def test_a_model_that_always_thinks_gets_no_switch():
    always = msgspec.structs.replace(THINKS, always_thinks=True)
    assert fit(always, reasoning_effort="low") == {"reasoning_effort": "low"}


@pytest.mark.parametrize("choice", [None, "auto", "required", {"type": "tool", "name": "f"}])
def test_tools_are_refused_for_a_model_without_tool_calls(choice):
    body: dict[str, object] = {"tools": [{"name": "f"}], "tool_choice": choice}
    with pytest.raises(NotSupported) as refused:
        check_tools(body, PLAIN)
    assert refused.value.message == "host/library/m:latest does not support tools"
    check_tools(body, CALLS)


@pytest.mark.parametrize("choice", ["none", {"type": "none"}])
def test_tools_with_choice_none_pass_for_any_model(choice):
    check_tools({"tools": [{"name": "f"}], "tool_choice": choice}, PLAIN)
