"""Derived models: merged over their base, hashed, and added to a relayed request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vllamad.core.overlay import (
    EMPTY_OVERLAY,
    Adapter,
    Overlay,
    Turn,
    derived_digest,
    layer_digests,
    merge,
)
from vllamad.translate.conversation.relayed_requests import RequestBody
from vllamad.translate.engine.model_defaults import add_model_defaults

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
TURNS = (Turn(role="user", content="hi"), Turn(role="assistant", content="hello"))
HISTORY = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ASKED = [{"role": "user", "content": "why?"}]
BASE = Overlay(
    system="be brief",
    template="{{ base }}",
    parameters={"temperature": 0.5, "top_k": 5},
    messages=TURNS,
    licenses=("MIT", "own"),
    capabilities=("tools",),
    adapter=Adapter(config="a" * 64, weights="b" * 64),
)


@dataclass
class Case:
    new: Overlay
    part: str
    value: object


def test_an_empty_setting_is_inherited_from_the_base() -> None:
    assert merge(BASE, EMPTY_OVERLAY) == BASE == merge(EMPTY_OVERLAY, BASE)


@pytest.mark.parametrize(
    "case",
    [
        Case(Overlay(system="be long"), "system", "be long"),
        Case(Overlay(template="{{ new }}"), "template", "{{ new }}"),
        Case(
            Overlay(parameters={"top_k": 1, "seed": 2}),
            "parameters",
            {"temperature": 0.5, "top_k": 1, "seed": 2},
        ),
        Case(Overlay(messages=TURNS[:1]), "messages", TURNS[:1]),
        Case(Overlay(licenses=("own", "new")), "licenses", ("MIT", "own", "new")),
        Case(Overlay(capabilities=("vision",)), "capabilities", ("vision",)),
        Case(
            Overlay(adapter=Adapter(config="c" * 64, weights="d" * 64)),
            "adapter",
            Adapter(config="c" * 64, weights="d" * 64),
        ),
    ],
    ids=lambda case: case.part,
)
def test_a_setting_replaces_merges_or_appends(case: Case) -> None:
    made = merge(BASE, case.new)
    assert getattr(made, case.part) == case.value
    others = set(BASE.__struct_fields__) - {case.part}
    assert all(getattr(made, name) == getattr(BASE, name) for name in others)


def test_only_a_plain_copy_has_the_digest_of_its_base() -> None:
    assert derived_digest("f" * 64, EMPTY_OVERLAY) == "f" * 64
    other = derived_digest("f" * 64, BASE)
    assert len(other) == 64
    assert other != "f" * 64
    assert other == derived_digest("f" * 64, BASE) != derived_digest("e" * 64, BASE)


def test_the_order_of_parameters_changes_no_digest() -> None:
    turned = Overlay(parameters={"top_k": 5, "temperature": 0.5})
    assert derived_digest("f", turned) == derived_digest("f", Overlay(parameters=BASE.parameters))


def test_the_id_of_an_adapter_depends_on_both_files() -> None:
    ids = {
        Adapter(config=config, weights=weights).id
        for config in ("a", "b")
        for weights in ("a", "b")
    }
    assert len(ids) == 4


def test_each_setting_that_is_not_empty_is_a_layer() -> None:
    assert layer_digests(EMPTY_OVERLAY) == []
    assert len(layer_digests(BASE)) == len(BASE.__struct_fields__)
    assert all(len(layer) == len("sha256:") + 64 for layer in layer_digests(BASE))


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES + "/count_tokens"])
def test_an_empty_overlay_leaves_a_request_unchanged(path: str) -> None:
    body: RequestBody = {"messages": ASKED}
    assert add_model_defaults(path, body, EMPTY_OVERLAY, 2048, {}) is body


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"temperature": 0.5, "top_k": 5, "stop": ["x"], "max_tokens": 7}),
        (COMPLETIONS, {"temperature": 0.5, "top_k": 5, "stop": ["x"], "max_tokens": 7}),
        (RESPONSES, {"temperature": 0.5, "top_k": 5, "max_output_tokens": 7}),
        (MESSAGES, {"temperature": 0.5, "top_k": 5, "top_p": 0.9, "stop_sequences": ["x"]}),
        ("/v1/embeddings", {}),
    ],
)
def test_parameters_get_the_names_of_each_route(path: str, more: RequestBody) -> None:
    overlay = Overlay(
        parameters={"temperature": 0.5, "top_k": 5, "stop": ["x"], "num_predict": 7, "num_ctx": 64}
    )
    stored = overlay.parameters
    assert add_model_defaults(path, {"model": "a"}, overlay, 2048, stored) == {"model": "a"} | more


@pytest.mark.case("K2")
def test_messages_are_sampled_with_the_models_options_above_ollamas_defaults() -> None:
    ollamas: RequestBody = {"temperature": 0.8, "top_p": 0.9, "top_k": 40}
    assert add_model_defaults(MESSAGES, {}, EMPTY_OVERLAY, 2048, {}) == ollamas
    assert add_model_defaults(MESSAGES, {}, EMPTY_OVERLAY, 2048, {"top_p": 0.5}) == ollamas | {
        "top_p": 0.5
    }
    assert add_model_defaults(
        MESSAGES, {"temperature": 0.0}, EMPTY_OVERLAY, 2048, {"temperature": 0.3}
    ) == (ollamas | {"temperature": 0.0})


def test_the_clients_fields_win_over_the_overlay() -> None:
    overlay = Overlay(parameters={"temperature": 0.5, "num_predict": 7})
    body: RequestBody = {"temperature": 1.0, "max_completion_tokens": 9}
    assert add_model_defaults(CHAT, body, overlay, 2048, {}) == body


@pytest.mark.parametrize(
    ("path", "sent", "made"),
    [
        (
            CHAT,
            {"messages": ASKED},
            {"messages": [{"role": "system", "content": "be brief"}, *HISTORY, *ASKED]},
        ),
        (
            CHAT,
            {"messages": [{"role": "system", "content": "own"}]},
            {"messages": [*HISTORY, {"role": "system", "content": "own"}]},
        ),
        (
            CHAT,
            {"messages": [{"role": "developer", "content": "own"}]},
            {"messages": [*HISTORY, {"role": "developer", "content": "own"}]},
        ),
        (
            CHAT,
            {"messages": []},
            {"messages": [{"role": "system", "content": "be brief"}, *HISTORY]},
        ),
        (CHAT, {"messages": "none"}, {"messages": "none"}),
        (
            MESSAGES,
            {"messages": ASKED},
            {"messages": [*HISTORY, *ASKED], "system": "be brief"}
            | {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
        ),
        (
            MESSAGES + "/count_tokens",
            {"messages": ASKED, "system": "own"},
            {"messages": [*HISTORY, *ASKED], "system": "own"},
        ),
        (RESPONSES, {"input": "why?"}, {"input": "why?", "instructions": "be brief"}),
        (
            RESPONSES,
            {"input": "why?", "instructions": "own"},
            {"input": "why?", "instructions": "own"},
        ),
        (COMPLETIONS, {"prompt": "why?"}, {"prompt": "why?"}),
    ],
)
def test_system_message_and_history_come_first_without_the_clients(
    path: str, sent: RequestBody, made: RequestBody
) -> None:
    overlay = Overlay(system="be brief", messages=TURNS)
    assert add_model_defaults(path, sent, overlay, 2048, {}) == made


def test_a_history_alone_is_put_before_the_conversation() -> None:
    body = add_model_defaults(CHAT, {"messages": ASKED}, Overlay(messages=TURNS), 2048, {})
    assert body == {"messages": [*HISTORY, *ASKED]}
