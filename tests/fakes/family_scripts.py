"""Model families, played: a template, what the model says, and what a client is to hear of it.

The real engine says it (`tests/e2e/test_families.py`), and what came over its socket then is kept
in `recorded/` and said again by the scripted engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

RECORDED = Path(__file__).with_name("recorded")

TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') + '<|im_end|>\n'"
    " }}{% endfor %}{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
)
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
SWITCH = (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
OPENS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"

THOUGHT = "The user wants the weather.\nI should ask for it."
WEATHER: dict[str, Any] = {"city": "Zürich", "days": [1, 2]}
QUOTED: dict[str, Any] = {**WEATHER, "note": 'say "hi" \\o/'}
CALL = r'{"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "note": "say \"hi\" \\o/"}}'  # noqa: E501
SECOND = '{"name": "get_time", "arguments": {}}'

_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "note": {"type": "string"},
    },
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": _SCHEMA}}
    for name in ("get_weather", "get_time")
]
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "How is the weather?"}]}


class Act(NamedTuple):
    """One family; `calls` are names and arguments."""

    name: str
    template: str
    script: str
    model_type: str = "llama"
    thinking: str = ""
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    think: bool | None = None  # what the request asks for

    @property
    def recorded(self) -> Path:
        return RECORDED / f"parsed-{self.name}.sse"

    @property
    def request(self) -> dict[str, Any]:
        return ASKED | ({"tools": TOOLS} if self.calls else {}) | {"think": self.think}


ACTS = (
    Act(
        name="qwen3",
        template=TURNS + '{# <tool_call>\n{"name": <function-name> #}' + PROMPT + SWITCH,
        script=f"<think>\n{THOUGHT}\n</think>\n\nLet me look.\n<tool_call>\n{CALL}\n</tool_call>\n"
        f"<tool_call>\n{SECOND}\n</tool_call>",
        thinking=THOUGHT + "\n",
        content="Let me look.\n",
        calls=(("get_weather", QUOTED), ("get_time", {})),
    ),
    Act(
        name="qwen3-silent",
        template=TURNS + PROMPT + "{# <think> #}" + SWITCH,
        script="Just an answer.",
        content="Just an answer.",
        think=False,
    ),
    Act(
        name="hermes",
        template=TURNS + '{# <tool_call>\n{"name": <function-name> #}' + PROMPT,
        script=f"<tool_call>\n{CALL}\n</tool_call>",
        calls=(("get_weather", QUOTED),),
    ),
    Act(
        name="qwen3_coder",
        template=TURNS + "{# <tool_call>\n<function=f>\n<parameter=p> #}" + PROMPT,
        script="Let me look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich\n"
        "</parameter>\n<parameter=days>\n[1, 2]\n</parameter>\n</function>\n</tool_call>",
        content="Let me look.\n",
        calls=(("get_weather", WEATHER),),
    ),
    Act(
        name="llama3_json",
        template=TURNS + "{# <|python_tag|> #}" + PROMPT,
        script='{"name": "get_weather", "parameters": {"city": "Zürich", "days": [1, 2]}}',
        calls=(("get_weather", WEATHER),),
    ),
    Act(
        name="mistral",
        template=TURNS + "{# [TOOL_CALLS] #}" + PROMPT,
        script=f"[TOOL_CALLS][{CALL}, {SECOND}]",
        model_type="mistral",
        calls=(("get_weather", QUOTED), ("get_time", {})),
    ),
    Act(
        name="deepseek_r1",
        template=TURNS + OPENS,
        script=f"{THOUGHT}\n</think>\n\nI do not know the weather in Zürich. 🌦",
        thinking=THOUGHT + "\n",
        content="I do not know the weather in Zürich. 🌦",
    ),
)
