"""Chooses the engine's parsers for a model's tool calls and thinking.

The operator's flags come first, then evidence in the chat template and the family. Without
evidence no parser is used, since a wrong reasoning parser loses whole answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vllamad.config.settings import Flag
from vllamad.core.audio_support import AudioSupport, missing_packages
from vllamad.core.engine_features import EngineFeatures
from vllamad.models.checkpoint.metadata import ModelFacts

TOOL_FLAG, REASONING_FLAG = "tool-call-parser", "reasoning-parser"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserRow:
    """A parser and its evidence, all of which must hold.

    Plain texts, not patterns: templates are untrusted, and a pattern can take very long.
    """

    parser: str
    family: tuple[str, ...] = ("",)  # prefixes of model_type
    exact: bool = False  # `family` is the whole of model_type
    markers: tuple[str, ...] = ()  # texts that the template contains
    without: tuple[str, ...] = ()  # texts that it does not contain
    opens_thought: bool = False  # the generation prompt ends in <think>
    engine_renders: bool = False  # vLLM renders this family's prompts without a template


_MISTRAL = ("mistral", "mixtral", "ministral", "pixtral", "voxtral")
_GLM = ("glm4", "glm5", "glm_moe")

# The first row that fits wins.
TOOLS = (
    ParserRow(parser="openai", family=("gpt_oss",), engine_renders=True),
    ParserRow(parser="deepseek_v41", family=("deepseek_v41",), engine_renders=True),
    ParserRow(parser="deepseek_v4", family=("deepseek_v4",), engine_renders=True),
    ParserRow(parser="deepseek_v32", family=("deepseek_v32",), engine_renders=True),
    ParserRow(parser="kimi_k3", family=("kimi_k3",), engine_renders=True),
    # Formats with a unique marker.
    ParserRow(parser="kimi_k2", markers=("<|tool_calls_section_begin|>",)),
    ParserRow(parser="minimax_m3", family=("minimax_m3",), markers=("<minimax:tool_call>",)),
    ParserRow(parser="minimax_m2", markers=("<minimax:tool_call>",)),
    ParserRow(parser="seed_oss", markers=("<seed:tool_call>",)),
    ParserRow(parser="longcat", markers=("<longcat_tool_call>",)),
    ParserRow(parser="lfm2", markers=("<|tool_call_start|>",)),
    ParserRow(parser="functiongemma", markers=("<start_function_call>",)),
    ParserRow(parser="gemma4", markers=("<|tool_call>",)),
    ParserRow(parser="internlm", markers=("<|action_start|>",)),
    ParserRow(parser="apertus", markers=("<|tools_prefix|>",)),
    ParserRow(parser="dots", markers=("<dots_function_call>",)),
    ParserRow(parser="plamo3", markers=("<|plamo:begin_tool_request:plamo|>",)),
    ParserRow(parser="k2_horizon", markers=("<ifm|tool_calls>",)),
    ParserRow(parser="step3", markers=("<｜tool_calls_begin｜>",)),
    ParserRow(parser="deepseek_v31", markers=("<｜tool▁calls▁begin｜>",), without=("```json",)),
    ParserRow(parser="deepseek_v3", markers=("<｜tool▁calls▁begin｜>", "```json")),
    ParserRow(parser="cohere_command3", family=("cohere",), markers=("<|START_ACTION|>",)),
    ParserRow(
        parser="gigachat3",
        family=("deepseek_v3", "gigachat"),
        markers=("<|role_sep|>", "function call"),
    ),
    # Shared markers, distinguished by family.
    ParserRow(
        parser="llama4_json", family=("llama4",), markers=("<|python_start|>", '"parameters":')
    ),
    ParserRow(parser="llama4_pythonic", family=("llama4",), markers=("<|python_start|>",)),
    ParserRow(parser="xlam", markers=("Salesforce xLAM",)),
    ParserRow(parser="pythonic", family=("llama",), exact=True, markers=("[func_name1(",)),
    ParserRow(
        parser="llama3_json",
        family=("llama", "mllama"),
        exact=True,
        markers=("<|python_tag|>",),
        without=("<function=",),  # Functionary's own form
    ),
    ParserRow(
        parser="llama3_json",
        family=("llama", "mllama"),
        exact=True,
        markers=("Environment: ipython", '"parameters":'),
        without=("<function=",),
    ),
    ParserRow(parser="mistral", family=_MISTRAL, markers=("[TOOL_CALLS]",)),
    ParserRow(parser="phi4_mini_json", family=("phi3",), markers=("<|tool|>",)),
    ParserRow(parser="granite-20b-fc", family=("gpt_bigcode",), markers=("<function_call>",)),
    ParserRow(parser="granite", family=("granite",), markers=("<|tool_call|>",)),
    ParserRow(parser="granite4", family=("granite",), markers=("<tool_call>",)),
    ParserRow(parser="hunyuan_a13b", family=("hunyuan",), markers=("<tool_calls>",)),
    ParserRow(parser="jamba", family=("jamba",), markers=("<tool_calls>",)),
    ParserRow(parser="olmo3", family=("olmo3",), markers=("<function_calls>",)),
    ParserRow(parser="ernie45", family=("ernie4_5",), markers=("<tool_call>",)),
    ParserRow(parser="ling3", family=("bailing",), markers=("<arg_key>",)),
    ParserRow(parser="glm45", family=_GLM, markers=("<arg_key>",)),
    ParserRow(parser="step3p5", family=("step3p",), markers=("<function=", "<parameter=")),
    ParserRow(parser="mimo", family=("mimo",), markers=("<function=", "<parameter=")),
    # Qwen's two forms, which many fine-tunes and other families use; the second is Hermes'.
    ParserRow(parser="qwen3_coder", markers=("<tool_call>", "<function=", "<parameter=")),
    ParserRow(parser="hermes", markers=("<tool_call>", '{"name"')),
)

REASONING = (
    ParserRow(parser="openai_gptoss", family=("gpt_oss",), engine_renders=True),
    ParserRow(parser="deepseek_v41", family=("deepseek_v41",), engine_renders=True),
    ParserRow(parser="deepseek_v4", family=("deepseek_v4",), engine_renders=True),
    ParserRow(parser="deepseek_v3", family=("deepseek_v32",), engine_renders=True),
    ParserRow(parser="kimi_k3", family=("kimi_k3",), engine_renders=True),
    ParserRow(parser="kimi_k2", markers=("<|tool_calls_section_begin|>", "<think>")),
    ParserRow(parser="minimax_m3", family=("minimax_m3",), markers=("<think>",)),
    ParserRow(parser="minimax_m2", markers=("<minimax:tool_call>", "<think>")),
    ParserRow(parser="seed_oss", markers=("<seed:think>",)),
    ParserRow(parser="gemma4", family=("gemma4",), markers=("<|channel>", "enable_thinking")),
    ParserRow(parser="mistral", family=_MISTRAL, markers=("[THINK]",)),
    ParserRow(parser="granite", family=("granite",), markers=("Here is my thought process",)),
    ParserRow(
        parser="granite_thinking_parser",
        family=("granite",),
        markers=("<think>", "enable_thinking", "<function="),
    ),
    ParserRow(parser="hunyuan_a13b", family=("hunyuan",), markers=("<think>", "<answer>")),
    ParserRow(parser="ernie45", family=("ernie4_5",), markers=("<think>",)),
    ParserRow(parser="olmo3", family=("olmo3",), opens_thought=True),
    ParserRow(parser="ling3", family=("bailing",), markers=("<arg_key>", "<think>")),
    ParserRow(parser="glm45", family=_GLM, markers=("<think>",)),
    ParserRow(parser="nemotron_v3", family=("nemotron_h",), markers=("<think>", "<function=")),
    ParserRow(parser="mimo", family=("mimo",), markers=("<think>", "enable_thinking")),
    ParserRow(parser="step3p5", family=("step3p",), markers=("<think>",)),
    ParserRow(parser="step3", family=("step3",), opens_thought=True),
    ParserRow(parser="plamo3", family=("plamo3",), markers=("enable_thinking",)),
    ParserRow(parser="minicpmv", family=("minicpmv", "minicpmo"), markers=("enable_thinking",)),
    # DeepSeek V3.1 and R1 share the turns; only the first can switch thinking off.
    ParserRow(parser="deepseek_v3", markers=("<｜Assistant｜>", "<think>", "not thinking")),
    ParserRow(
        parser="deepseek_r1", markers=("<｜Assistant｜>", "</think>"), without=("not thinking",)
    ),
    # A switch for thinking: Qwen's form, which SmolLM3, EXAONE and others use.
    ParserRow(parser="qwen3", markers=("<think>", "enable_thinking"), without=("<TOOLCALL>",)),
    # No switch: QwQ, Qwen3-Thinking-2507, and models distilled from R1.
    ParserRow(parser="deepseek_r1", opens_thought=True, without=("enable_thinking", "<TOOLCALL>")),
)

# A template uses `tools` where it tests or iterates over them.
_USES_TOOLS = re.compile(r"\b(?:if|in|and|not)\s+\(?tools\b")
_SWITCH = re.compile(r"\benable_thinking\b|\b(?:if|and|not|or)\s+\(?thinking\b")


def parsers_for(facts: ModelFacts, args: Mapping[str, Flag]) -> tuple[str | None, str | None]:
    """Choose the engine's (tool parser, reasoning parser) for a model; None for neither.

    `args` are the operator's flags for it: a parser they name is used, and false turns it off.
    """
    flags = {name.replace("_", "-"): value for name, value in args.items()}
    return (
        _configured(flags[TOOL_FLAG]) if TOOL_FLAG in flags else _tool_parser(facts),
        _configured(flags[REASONING_FLAG]) if REASONING_FLAG in flags else _first(REASONING, facts),
    )


def usable_parsers(
    facts: ModelFacts, args: Mapping[str, Flag], engine: EngineFeatures | None
) -> tuple[str | None, str | None]:
    """The parsers of `parsers_for` that `engine` has; None is an engine not probed yet.

    A parser that the operator names is not checked: a plugin may provide it.
    """
    tools, reasoning = parsers_for(facts, args)
    if engine is None:
        return tools, reasoning
    configured = args.values()
    return (
        tools if tools in engine.tool_parsers or tools in configured else None,
        reasoning if reasoning in engine.reasoning_parsers or reasoning in configured else None,
    )


def capabilities(
    facts: ModelFacts, args: Mapping[str, Flag], engine: EngineFeatures | None
) -> tuple[str, ...]:
    """The capabilities of the model, in Ollama's words.

    Tools and thinking need a parser of the engine, audio needs its packages that read sound.
    """
    missing = missing_packages(facts.audio, engine.audio_packages) if engine else ()
    takes_audio = facts.audio is not AudioSupport.NONE and not missing
    if facts.is_embedding:
        return ("embedding",)
    if facts.audio is AudioSupport.TRANSCRIBE_ONLY:
        return ("audio",) if takes_audio else ()
    tool_parser, reasoning_parser = usable_parsers(facts, args, engine)
    offered = {
        "completion": True,
        "insert": facts.fim,
        "vision": facts.has_vision,
        "audio": takes_audio,
        "tools": tool_parser,
        "thinking": reasoning_parser,
    }
    return tuple(name for name, able in offered.items() if able)


def can_switch_thinking(facts: ModelFacts) -> bool:
    """Whether thinking can be switched off; if not, parsers must not be told that it is."""
    rows = (row for row in REASONING if row.engine_renders and row.parser != "openai_gptoss")
    return bool(_SWITCH.search(facts.chat_template)) or any(_fits(row, facts) for row in rows)


def opens_thought(template: str) -> bool:
    """Whether the generation prompt, the template's last part, ends in an open <think>."""
    _, separator, prompt = template.rpartition("add_generation_prompt")
    return bool(separator) and "<think>" in prompt and "</think>" not in prompt


def _configured(value: Flag) -> str | None:
    return value if isinstance(value, str) else None


def _tool_parser(facts: ModelFacts) -> str | None:
    uses_tools = _USES_TOOLS.search(facts.chat_template)
    return _first(tuple(row for row in TOOLS if uses_tools or row.engine_renders), facts)


def _first(rows: tuple[ParserRow, ...], facts: ModelFacts) -> str | None:
    return next((row.parser for row in rows if _fits(row, facts)), None)


def _fits(row: ParserRow, facts: ModelFacts) -> bool:
    of_family = (
        facts.model_type in row.family if row.exact else facts.model_type.startswith(row.family)
    )
    # Quotes inside a quoted string of a template are escaped.
    template = facts.chat_template.replace("\\", "")
    return (
        of_family
        and all(marker in template for marker in row.markers)
        and not any(marker in template for marker in row.without)
        and (not row.opens_thought or opens_thought(template))
    )
