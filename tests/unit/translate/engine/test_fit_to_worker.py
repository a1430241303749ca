"""What the model and its worker say about a request that is the engine's own."""

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
def test_no_answer_is_longer_than_the_context(name, limit, kept):
    assert fit(**{name: limit}) == {name: kept}


@pytest.mark.parametrize(
    ("part", "kind"),
    [({"type": "image_url"}, "image"), ({"type": "input_image"}, "image"),
     ({"type": "image"}, "image"), ({"type": "input_audio"}, "audio"),
     ({"type": "tool_result", "content": [{"type": "image"}]}, "image"),
     ({"type": "function_call_output", "output": [{"type": "input_image"}]}, "image")],
)  # fmt: skip
@pytest.mark.parametrize("field", ["messages", "input"])
def test_media_are_refused_where_a_model_takes_none(part, kind, field) -> None:
    said: list[object] = [{"role": "user", "content": "x"}, {"content": [{"type": "text"}, part]}]
    body: dict[str, object] = {field: said}
    with pytest.raises(NotSupported, match=f"this model does not support {kind} input"):
        check_media(body, PLAIN)
    able = frozenset({"completion", "vision" if kind == "image" else "audio"})
    check_media(body, msgspec.structs.replace(PLAIN, capabilities=able))


def test_no_answer_has_to_be_longer_than_it_may() -> None:
    assert fit(max_tokens=5, min_tokens=9) == {"max_tokens": 5, "min_tokens": 5}
    assert fit(max_tokens=5, min_tokens=2) == {"max_tokens": 5, "min_tokens": 2}


@pytest.mark.case("B3")
@pytest.mark.parametrize(
    ("asked", "sent", "form"),
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
def test_what_the_engine_cannot_be_asked_is_done_with_its_answer(asked, sent, form) -> None:
    assert take_answer_form(asked) == (sent, form)


def test_an_unknown_context_limits_nothing():
    assert fit(length=0, max_tokens=9) == {"max_tokens": 9}


@pytest.mark.parametrize(
    "wish",
    [{"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": {"type": "disabled"}}],
)
def test_a_model_that_does_not_think_is_not_asked_to(wish):
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
def test_a_model_that_thinks_is_told_whether_to_under_both_names(wish, sent):
    assert fit(THINKS, **wish) == sent


def test_where_there_is_no_switch_nobody_is_told_of_one():
    always = msgspec.structs.replace(THINKS, always_thinks=True)
    assert fit(always, reasoning_effort="low") == {"reasoning_effort": "low"}


@pytest.mark.parametrize("choice", [None, "auto", "required", {"type": "tool", "name": "f"}])
def test_tools_are_refused_where_the_model_cannot_call_them(choice):
    body: dict[str, object] = {"tools": [{"name": "f"}], "tool_choice": choice}
    with pytest.raises(NotSupported) as refused:
        check_tools(body, PLAIN)
    assert refused.value.message == "host/library/m:latest does not support tools"
    check_tools(body, CALLS)


@pytest.mark.parametrize("choice", ["none", {"type": "none"}])
def test_tools_that_must_not_be_called_need_no_such_model(choice):
    check_tools({"tools": [{"name": "f"}], "tool_choice": choice}, PLAIN)
