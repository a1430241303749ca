"""Which of the engine's parsers understand a model's tool calls and thinking, if any.

The operator's word first, then evidence in the chat template, then the family. Where the template
proves nothing, none: a wrong reasoning parser swallows whole answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vllamad.config.settings import Flag
from vllamad.core.audio import AudioSupport, missing_packages
from vllamad.core.engine_features import EngineFeatures
from vllamad.models.checkpoint.metadata import ModelFacts

TOOL_FLAG, REASONING_FLAG = "tool-call-parser", "reasoning-parser"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A parser and its evidence, all of which must hold.

    Plain texts, not patterns: templates come from strangers, and a pattern can take for ever.
    """

    parser: str
    family: tuple[str, ...] = ("",)  # how model_type begins
    exact: bool = False  # `family` is the whole of model_type
    markers: tuple[str, ...] = ()  # texts the template holds
    without: tuple[str, ...] = ()  # texts it does not hold
    opens_thought: bool = False  # the generation prompt itself ends in <think>
    engine_renders: bool = False  # vLLM writes this family's prompts itself, without a template


_MISTRAL = ("mistral", "mixtral", "ministral", "pixtral", "voxtral")
_GLM = ("glm4", "glm5", "glm_moe")

# The first row that fits wins.
TOOLS = (
    Row(parser="openai", family=("gpt_oss",), engine_renders=True),
    Row(parser="deepseek_v41", family=("deepseek_v41",), engine_renders=True),
    Row(parser="deepseek_v4", family=("deepseek_v4",), engine_renders=True),
    Row(parser="deepseek_v32", family=("deepseek_v32",), engine_renders=True),
    Row(parser="kimi_k3", family=("kimi_k3",), engine_renders=True),
    # A format of their own, with a marker nobody else has.
    Row(parser="kimi_k2", markers=("<|tool_calls_section_begin|>",)),
    Row(parser="minimax_m3", family=("minimax_m3",), markers=("<minimax:tool_call>",)),
    Row(parser="minimax_m2", markers=("<minimax:tool_call>",)),
    Row(parser="seed_oss", markers=("<seed:tool_call>",)),
    Row(parser="longcat", markers=("<longcat_tool_call>",)),
    Row(parser="lfm2", markers=("<|tool_call_start|>",)),
    Row(parser="functiongemma", markers=("<start_function_call>",)),
    Row(parser="gemma4", markers=("<|tool_call>",)),
    Row(parser="internlm", markers=("<|action_start|>",)),
    Row(parser="apertus", markers=("<|tools_prefix|>",)),
    Row(parser="dots", markers=("<dots_function_call>",)),
    Row(parser="plamo3", markers=("<|plamo:begin_tool_request:plamo|>",)),
    Row(parser="k2_horizon", markers=("<ifm|tool_calls>",)),
    Row(parser="step3", markers=("<｜tool_calls_begin｜>",)),
    Row(parser="deepseek_v31", markers=("<｜tool▁calls▁begin｜>",), without=("```json",)),
    Row(parser="deepseek_v3", markers=("<｜tool▁calls▁begin｜>", "```json")),
    Row(parser="cohere_command3", family=("cohere",), markers=("<|START_ACTION|>",)),
    Row(
        parser="gigachat3",
        family=("deepseek_v3", "gigachat"),
        markers=("<|role_sep|>", "function call"),
    ),
    # Shared markers, told apart by family.
    Row(parser="llama4_json", family=("llama4",), markers=("<|python_start|>", '"parameters":')),
    Row(parser="llama4_pythonic", family=("llama4",), markers=("<|python_start|>",)),
    Row(parser="xlam", markers=("Salesforce xLAM",)),
    Row(parser="pythonic", family=("llama",), exact=True, markers=("[func_name1(",)),
    Row(
        parser="llama3_json",
        family=("llama", "mllama"),
        exact=True,
        markers=("<|python_tag|>",),
        without=("<function=",),  # Functionary's own form
    ),
    Row(
        parser="llama3_json",
        family=("llama", "mllama"),
        exact=True,
        markers=("Environment: ipython", '"parameters":'),
        without=("<function=",),
    ),
    Row(parser="mistral", family=_MISTRAL, markers=("[TOOL_CALLS]",)),
    Row(parser="phi4_mini_json", family=("phi3",), markers=("<|tool|>",)),
    Row(parser="granite-20b-fc", family=("gpt_bigcode",), markers=("<function_call>",)),
    Row(parser="granite", family=("granite",), markers=("<|tool_call|>",)),
    Row(parser="granite4", family=("granite",), markers=("<tool_call>",)),
    Row(parser="hunyuan_a13b", family=("hunyuan",), markers=("<tool_calls>",)),
    Row(parser="jamba", family=("jamba",), markers=("<tool_calls>",)),
    Row(parser="olmo3", family=("olmo3",), markers=("<function_calls>",)),
    Row(parser="ernie45", family=("ernie4_5",), markers=("<tool_call>",)),
    Row(parser="ling3", family=("bailing",), markers=("<arg_key>",)),
    Row(parser="glm45", family=_GLM, markers=("<arg_key>",)),
    Row(parser="step3p5", family=("step3p",), markers=("<function=", "<parameter=")),
    Row(parser="mimo", family=("mimo",), markers=("<function=", "<parameter=")),
    # Qwen's two forms, which many fine-tunes and other families kept; the second came with Hermes.
    Row(parser="qwen3_coder", markers=("<tool_call>", "<function=", "<parameter=")),
    Row(parser="hermes", markers=("<tool_call>", '{"name"')),
)

REASONING = (
    Row(parser="openai_gptoss", family=("gpt_oss",), engine_renders=True),
    Row(parser="deepseek_v41", family=("deepseek_v41",), engine_renders=True),
    Row(parser="deepseek_v4", family=("deepseek_v4",), engine_renders=True),
    Row(parser="deepseek_v3", family=("deepseek_v32",), engine_renders=True),
    Row(parser="kimi_k3", family=("kimi_k3",), engine_renders=True),
    Row(parser="kimi_k2", markers=("<|tool_calls_section_begin|>", "<think>")),
    Row(parser="minimax_m3", family=("minimax_m3",), markers=("<think>",)),
    Row(parser="minimax_m2", markers=("<minimax:tool_call>", "<think>")),
    Row(parser="seed_oss", markers=("<seed:think>",)),
    Row(parser="gemma4", family=("gemma4",), markers=("<|channel>", "enable_thinking")),
    Row(parser="mistral", family=_MISTRAL, markers=("[THINK]",)),
    Row(parser="granite", family=("granite",), markers=("Here is my thought process",)),
    Row(
        parser="granite_thinking_parser",
        family=("granite",),
        markers=("<think>", "enable_thinking", "<function="),
    ),
    Row(parser="hunyuan_a13b", family=("hunyuan",), markers=("<think>", "<answer>")),
    Row(parser="ernie45", family=("ernie4_5",), markers=("<think>",)),
    Row(parser="olmo3", family=("olmo3",), opens_thought=True),
    Row(parser="ling3", family=("bailing",), markers=("<arg_key>", "<think>")),
    Row(parser="glm45", family=_GLM, markers=("<think>",)),
    Row(parser="nemotron_v3", family=("nemotron_h",), markers=("<think>", "<function=")),
    Row(parser="mimo", family=("mimo",), markers=("<think>", "enable_thinking")),
    Row(parser="step3p5", family=("step3p",), markers=("<think>",)),
    Row(parser="step3", family=("step3",), opens_thought=True),
    Row(parser="plamo3", family=("plamo3",), markers=("enable_thinking",)),
    Row(parser="minicpmv", family=("minicpmv", "minicpmo"), markers=("enable_thinking",)),
    # DeepSeek V3.1 and R1 share the turns; only the first can be told not to think.
    Row(parser="deepseek_v3", markers=("<｜Assistant｜>", "<think>", "not thinking")),
    Row(parser="deepseek_r1", markers=("<｜Assistant｜>", "</think>"), without=("not thinking",)),
    # A switch, and the thought it switches: Qwen's form, which SmolLM3, EXAONE and others took.
    Row(parser="qwen3", markers=("<think>", "enable_thinking"), without=("<TOOLCALL>",)),
    # No switch: QwQ, Qwen3-Thinking-2507, and what was distilled from R1.
    Row(parser="deepseek_r1", opens_thought=True, without=("enable_thinking", "<TOOLCALL>")),
)

# A template uses `tools` where it tests or walks them; without, the model never hears of them.
_USES_TOOLS = re.compile(r"\b(?:if|in|and|not)\s+\(?tools\b")
_SWITCH = re.compile(r"\benable_thinking\b|\b(?:if|and|not|or)\s+\(?thinking\b")


def parsers_for(facts: ModelFacts, args: Mapping[str, Flag]) -> tuple[str | None, str | None]:
    """Choose the engine's (tool parser, reasoning parser) for a model; None for neither.

    `args` are the operator's own flags for it: what they name is taken, and a false one turns a
    parser off.
    """
    wished = {name.replace("_", "-"): value for name, value in args.items()}
    return (
        _wish(wished[TOOL_FLAG]) if TOOL_FLAG in wished else _tool_parser(facts),
        _wish(wished[REASONING_FLAG]) if REASONING_FLAG in wished else _first(REASONING, facts),
    )


def usable_parsers(
    facts: ModelFacts, args: Mapping[str, Flag], engine: EngineFeatures | None
) -> tuple[str | None, str | None]:
    """Those of `parsers_for` that `engine` has; None is an engine nobody knows yet.

    What the operator names is believed: a plugin may bring it.
    """
    tools, reasoning = parsers_for(facts, args)
    if engine is None:
        return tools, reasoning
    wished = args.values()
    return (
        tools if tools in engine.tool_parsers or tools in wished else None,
        reasoning if reasoning in engine.reasoning_parsers or reasoning in wished else None,
    )


def capabilities(
    facts: ModelFacts, args: Mapping[str, Flag], engine: EngineFeatures | None
) -> tuple[str, ...]:
    """What a client may ask of the model, in Ollama's words.

    Tools and thinking are promised only where a parser separates them, audio only where the
    engine has the packages that read it.
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
    """Is there a way to tell this model not to think? If not, parsers must not be told so."""
    rows = (row for row in REASONING if row.engine_renders and row.parser != "openai_gptoss")
    return bool(_SWITCH.search(facts.chat_template)) or any(_fits(row, facts) for row in rows)


def opens_thought(template: str) -> bool:
    """Does the generation prompt, a template's last part, open a thought and leave it open?"""
    _, found, prompt = template.rpartition("add_generation_prompt")
    return bool(found) and "<think>" in prompt and "</think>" not in prompt


def _wish(value: Flag) -> str | None:
    return value if isinstance(value, str) else None


def _tool_parser(facts: ModelFacts) -> str | None:
    heard = _USES_TOOLS.search(facts.chat_template)
    return _first(tuple(row for row in TOOLS if heard or row.engine_renders), facts)


def _first(rows: tuple[Row, ...], facts: ModelFacts) -> str | None:
    return next((row.parser for row in rows if _fits(row, facts)), None)


def _fits(row: Row, facts: ModelFacts) -> bool:
    of_family = (
        facts.model_type in row.family if row.exact else facts.model_type.startswith(row.family)
    )
    # Inside a quoted string of a template, quotes carry backslashes.
    template = facts.chat_template.replace("\\", "")
    return (
        of_family
        and all(marker in template for marker in row.markers)
        and not any(marker in template for marker in row.without)
        and (not row.opens_thought or opens_thought(template))
    )
