"""Parsers and capabilities are promised on evidence in the template, and never otherwise."""

from __future__ import annotations

import pytest

from tests.models.checkpoints import (
    BERT,
    CHATML_TEMPLATE,
    DISTILL_TEMPLATE,
    GEMMA3,
    LLAMA,
    LLAMA31_TEMPLATE,
    MISTRAL,
    MISTRAL_TEMPLATE,
    QWEN2,
    QWEN3,
    QWEN3_CODER_TEMPLATE,
    QWEN3_TEMPLATE,
    QWEN25_TEMPLATE,
    QWQ_TEMPLATE,
    SMOLLM2,
)
from vllamad.models.facts import derive
from vllamad.models.parsers import capabilities, parsers_for


@pytest.mark.parametrize(
    ("config", "template", "tool_parser", "reasoning_parser"),
    [
        (QWEN2, QWEN25_TEMPLATE, "hermes", None),
        (QWEN3, QWEN3_TEMPLATE, "hermes", "qwen3"),
        (QWEN3, QWEN25_TEMPLATE, "hermes", None),
        (QWEN3, QWEN3_CODER_TEMPLATE, "qwen3_coder", None),
        (QWEN2, QWQ_TEMPLATE, "hermes", "deepseek_r1"),
        (QWEN2, DISTILL_TEMPLATE, None, "deepseek_r1"),
        (LLAMA, DISTILL_TEMPLATE, None, "deepseek_r1"),
        (LLAMA, LLAMA31_TEMPLATE, "llama3_json", None),
        (LLAMA, LLAMA31_TEMPLATE.replace("<|python_tag|>", ""), "llama3_json", None),
        (MISTRAL, MISTRAL_TEMPLATE, "mistral", None),
        (MISTRAL, MISTRAL_TEMPLATE + "[THINK]", "mistral", "mistral"),
        ({"model_type": "gpt_oss"}, "<|channel|>", "openai", "openai_gptoss"),
        ({"model_type": "granitemoehybrid"}, QWEN25_TEMPLATE, "granite4", None),
        ({"model_type": "llama4"}, LLAMA31_TEMPLATE, None, None),
        (SMOLLM2, CHATML_TEMPLATE, None, None),
        (LLAMA, QWEN3_TEMPLATE, "hermes", None),
        (SMOLLM2, "", None, None),
    ],
)
def test_parsers_are_chosen_by_family_and_template(config, template, tool_parser, reasoning_parser):
    facts = derive(config, {}, template=template)
    assert parsers_for(facts) == (tool_parser, reasoning_parser)


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
    assert capabilities(derive(config, {}, template=template)) == offered
