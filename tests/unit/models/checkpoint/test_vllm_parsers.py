"""Parsers and capabilities are promised on evidence in the template, and never otherwise."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import (
    BERT,
    CHATML_TEMPLATE,
    GEMMA3,
    QWEN3,
    QWEN3_TEMPLATE,
    SMOLLM2,
)
from tests.support.engine_features import engine_features
from tests.support.model_families import (
    FAMILIES,
    HERMES,
    OPENS,
    REASONING_PARSERS,
    SWITCH,
    TOOL_PARSERS,
    Family,
)
from vllamad.models.checkpoint.metadata import facts_from
from vllamad.models.checkpoint.vllm_parsers import (
    REASONING,
    TOOLS,
    can_switch_thinking,
    capabilities,
    parsers_for,
    usable_parsers,
)

ENGINE = engine_features(tools=("hermes",), reasoning=("qwen3",))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_parsers_are_chosen_by_template_and_family(family: Family):
    facts = facts_from({"model_type": family.model_type}, {}, template=family.template)
    assert parsers_for(facts, {}) == (family.tools, family.reasoning)


def test_every_parser_of_the_tables_is_one_of_the_engines():
    """A name it does not know would never be used."""
    assert {row.parser for row in TOOLS} <= {*TOOL_PARSERS.split()}
    assert {row.parser for row in REASONING} <= {*REASONING_PARSERS.split()}


@pytest.mark.parametrize(
    ("args", "chosen"),
    [
        ({}, ("hermes", "qwen3")),
        ({"tool-call-parser": "qwen3_xml"}, ("qwen3_xml", "qwen3")),
        ({"tool_call_parser": "mine", "reasoning_parser": "deepseek_r1"}, ("mine", "deepseek_r1")),
        ({"reasoning-parser": False}, ("hermes", None)),
        ({"tool-call-parser": False, "reasoning-parser": False}, (None, None)),
        ({"max-num-seqs": 4}, ("hermes", "qwen3")),
    ],
)
def test_the_operators_own_flags_win(args, chosen):
    facts = facts_from(QWEN3, {}, template=QWEN3_TEMPLATE)
    assert parsers_for(facts, args) == chosen


@pytest.mark.parametrize(
    ("config", "template", "offered"),
    [
        (SMOLLM2, CHATML_TEMPLATE, ("completion",)),
        (SMOLLM2, "tools <think>" + CHATML_TEMPLATE, ("completion",)),
        (QWEN3, QWEN3_TEMPLATE, ("completion", "tools", "thinking")),
        (GEMMA3, CHATML_TEMPLATE, ("completion", "vision")),
        (BERT, "", ("embedding",)),
    ],
)
def test_capabilities_are_what_the_engine_can_deliver(config, template, offered):
    assert capabilities(facts_from(config, {}, template=template), {}, None) == offered


@pytest.mark.parametrize(
    ("engine", "offered"),
    [
        (None, ("completion", "tools", "thinking")),
        (ENGINE, ("completion", "tools", "thinking")),
        (
            engine_features(tools=("hermes",)),
            ("completion", "tools"),
        ),
        (engine_features(reasoning=("hermes",)), ("completion",)),
    ],
)
def test_what_the_engine_has_no_parser_for_is_not_promised(engine, offered):
    assert capabilities(facts_from(QWEN3, {}, template=QWEN3_TEMPLATE), {}, engine) == offered


@pytest.mark.parametrize(
    ("model_type", "template", "switchable"),
    [
        ("qwen3", HERMES + SWITCH, True),
        ("qwen3", HERMES + OPENS, False),
        ("deepseek_v3", "{%- if not thinking -%}", True),
        ("granite", "{%- if thinking %}", True),
        ("mistral3", "First think in your thinking block", False),
        ("gpt_oss", "<|channel|>", False),
        ("deepseek_v4", "", True),
    ],
)
def test_whether_thinking_can_be_switched_is_read_from_the_template(
    model_type, template, switchable
):
    facts = facts_from({"model_type": model_type}, {}, template=template)
    assert can_switch_thinking(facts) == switchable


def test_a_parser_the_operator_names_is_believed_to_be_there():
    facts = facts_from(QWEN3, {}, template=QWEN3_TEMPLATE)
    nothing = engine_features()
    args = {"tool_call_parser": "plugged_in"}
    assert usable_parsers(facts, args, nothing) == ("plugged_in", None)
