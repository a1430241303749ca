"""Which of the engine's parsers understand a model's tool calls and thinking, if any.

Chosen only on evidence in the chat template: a wrong reasoning parser swallows whole answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllamad.models.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A parser and its evidence: how `model_type` starts, and texts the template must all hold.

    Plain texts, not patterns: templates come from strangers, and a pattern can take for ever.
    """

    parser: str
    family: tuple[str, ...] = ("",)
    exact: bool = False  # `family` is the whole of model_type
    markers: tuple[str, ...] = ()
    opens_thought: bool = False  # the generation prompt itself ends in <think>


_MISTRAL = ("mistral", "mixtral", "ministral")

# The first row that fits wins.
TOOLS = (
    Row(parser="openai", family=("gpt_oss",)),
    Row(
        parser="qwen3_coder",
        family=("qwen3", "nemotron_h"),
        markers=("<function=", "<parameter="),
    ),
    Row(parser="granite4", family=("granitemoehybrid",), markers=("<tool_call>",)),
    Row(parser="mistral", family=_MISTRAL, markers=("[TOOL_CALLS]",)),
    Row(parser="llama3_json", family=("llama",), exact=True, markers=("<|python_tag|>",)),
    Row(
        parser="llama3_json",
        family=("llama",),
        exact=True,
        markers=("Environment: ipython", '"parameters":'),
    ),
    # The format of Hermes, which Qwen 2.5, Qwen 3, QwQ and many fine-tunes kept.
    Row(parser="hermes", markers=("<tool_call>", '{"name"')),
)

REASONING = (
    Row(parser="openai_gptoss", family=("gpt_oss",)),
    Row(parser="qwen3", family=("qwen3",), markers=("<think>",)),
    Row(parser="qwen3", family=("qwen3",), markers=("enable_thinking",)),
    Row(parser="mistral", family=_MISTRAL, markers=("[THINK]",)),
    # QwQ and the distilled R1 models
    Row(parser="deepseek_r1", family=("qwen2", "llama"), exact=True, opens_thought=True),
)


def parsers_for(facts: Facts) -> tuple[str | None, str | None]:
    """Choose the engine's (tool parser, reasoning parser) for a model; None for neither."""
    return _first(TOOLS, facts), _first(REASONING, facts)


def _first(rows: tuple[Row, ...], facts: Facts) -> str | None:
    return next((row.parser for row in rows if _fits(row, facts)), None)


def _fits(row: Row, facts: Facts) -> bool:
    of_family = (
        facts.model_type in row.family if row.exact else facts.model_type.startswith(row.family)
    )
    # Inside a quoted string of a template, quotes carry backslashes.
    template = facts.chat_template.replace("\\", "")
    return (
        of_family
        and all(marker in template for marker in row.markers)
        and (not row.opens_thought or opens_thought(template))
    )


def opens_thought(template: str) -> bool:
    """Does the generation prompt, a template's last part, open a thought and leave it open?"""
    _, found, prompt = template.rpartition("add_generation_prompt")
    return bool(found) and "<think>" in prompt and "</think>" not in prompt


def capabilities(facts: Facts) -> tuple[str, ...]:
    """What a client may ask of the model, in Ollama's words.

    Tools and thinking are promised only where the engine has a parser that separates them.
    """
    if facts.is_embedding:
        return ("embedding",)
    tool_parser, reasoning_parser = parsers_for(facts)
    offered = {
        "completion": True,
        "vision": facts.has_vision,
        "tools": bool(tool_parser) and facts.template_tools,
        "thinking": bool(reasoning_parser),
    }
    return tuple(name for name, able in offered.items() if able)
