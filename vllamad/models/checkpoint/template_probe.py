"""What a chat template accepts, found by rendering conversations with it.

Run in a process of its own (`python -m vllamad.models.checkpoint.template_probe`), which bounds
itself: a template is a stranger's program. The template comes on standard input, the rules are the
line of standard output that begins with MARK.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from typing import Final

import jinja2
import msgspec

from vllamad.models.checkpoint.template_rendering import Renderer
from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules, conform
from vllamad.translate.conversation.template_rules import STRICTEST
from vllamad.translate.conversation.turns import ChatMessage, calls_of

MARK: Final = b"template rules: "
TIME: Final = 5  # seconds of CPU, over all conversations
MEMORY: Final = 1 << 30  # bytes of address space

# Model output with this marker is Kimi K2's, whose calls are numbered over the conversation.
_KIMI: Final = "<|tool_calls_section_begin|>"
_DEVELOPER: Final = ('"developer"', "'developer'")  # else vLLM makes a system message of it
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "offered",
        "description": "d",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}


class ProbeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is asked."""

    template: str
    bos_token: str = ""
    eos_token: str = ""


def _conversation(turns: str) -> list[ChatMessage]:
    """A conversation from letters, each turn with words of its own.

    s, d, u, a: system, developer, user, assistant; S, U, A: in two parts; e, b: user, assistant
    without words; c, w, m: one call, one with words beside it, two; t: the result of the next call.
    """
    messages: list[ChatMessage] = []
    waiting: list[str] = []
    roles = {"s": "system", "d": "developer", "u": "user", "e": "user", "t": "tool"}
    for at, letter in enumerate(turns):
        words = f"wordqzx{at}y"
        message: ChatMessage = {"role": roles.get(letter.lower(), "assistant"), "content": words}
        if letter in "becm":
            message["content"] = ""
        if letter.isupper():
            two = (words, f"{words}z")
            message["content"] = [{"type": "text", "text": one} for one in two]
        if letter in "cwm":
            waiting = [f"call_with_a_long_id_{at}_{n}" for n in range(1 + (letter == "m"))]
            message["tool_calls"] = [_call(id, f"qzx{at}y{n}") for n, id in enumerate(waiting)]
        if letter == "t":
            message["tool_call_id"] = waiting.pop(0) if waiting else "call_that_is_not_there"
        messages.append(message)
    return messages


def _call(id: str, argument: str) -> ChatMessage:
    function = {"name": f"name{argument}", "arguments": {"a": f"value{argument}"}}
    return {"id": id, "type": "function", "function": function}


# Rule, value, and the conversations that must render for it. In this order, the lenient values
# first: the first that holds is the rule, and what comes later is still at its strictest.
_QUESTIONS: Final[tuple[tuple[str, object, str], ...]] = (
    ("tools", True, "uctau uctu"),
    ("call_ids", "any", "uctau"),
    ("one_call", False, "umttau"),
    ("call_text", True, "uwtau"),
    ("paired", False, "ucau umtau uaut"),
    ("alternates", False, "uu uaau uctu"),
    ("blank", True, "ubu uae"),
    ("ends_with_user", False, "ua"),
    ("system", "anywhere", "su suau suct sua ssu suasu suctasu"),
    ("system", "first", "su suau suct sua"),
    ("user", "anywhere", "s a au cta wtau"),
    ("user", "required", "s au ctu"),
    ("developer", True, "du sdu udu"),
    ("parts", True, "U SU SUAU"),
)


def find_rules(asked: ProbeRequest) -> TemplateRules:
    """The rules of a template; those that accept everything where it renders nothing at all.

    Raises what jinja2 raises for what is no template.
    """
    probe = _Probe(asked)
    if not probe.forms:
        return ACCEPTS_ALL
    rules = STRICTEST
    answered: set[str] = set()
    for name, value, conversations in _QUESTIONS:
        tried = msgspec.structs.replace(rules, **{name: value})
        if name not in answered and probe.holds(tried, conversations.split()):
            answered.add(name)
            rules = tried
    if not any(name in asked.template for name in _DEVELOPER):
        rules = msgspec.structs.replace(rules, developer=False)
    if _KIMI in asked.template:
        rules = msgspec.structs.replace(rules, call_ids="kimi")
    return rules


class _Probe:
    def __init__(self, asked: ProbeRequest) -> None:
        self._renderer = Renderer(
            asked.template, bos_token=asked.bos_token, eos_token=asked.eos_token
        )
        # As texts or as lists of parts: vLLM reads off the template which it walks.
        user = _conversation("u")
        self.forms = [form for form in (False, True) if self._renders(user, user, form)]

    def holds(self, rules: TemplateRules, conversations: Sequence[str]) -> bool:
        """Whether all conversations render by `rules`, with everything that was said in them."""
        for turns in conversations:
            said = _conversation(turns)
            given = conform(said, rules)
            if not all(self._renders(given, said, form) for form in self.forms):
                return False
        return True

    def _renders(self, given: list[ChatMessage], said: list[ChatMessage], parts: bool) -> bool:
        tools = [_TOOL] if any("tool_calls" in message for message in given) else None
        try:
            prompt = self._renderer.render(given, tools=tools, parts=parts)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a template can raise anything
            return False
        return all(word in prompt for word in _words(said))


def _words(messages: list[ChatMessage]) -> list[str]:
    """What must be in the prompt: all words, the names and the arguments of calls."""
    words: list[str] = []
    for message in messages:
        words += re.findall(r"word\w+", str(message["content"]))
        for call in calls_of(message):
            words += re.findall(r"\w+qzx\w*", str(call["function"]))
    return words


def main() -> int:
    """Answer the request on standard input; the exit status."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME, TIME))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    try:
        rules = find_rules(asked)
    except (jinja2.TemplateError, RecursionError, MemoryError, ValueError) as error:
        print(f"{type(error).__name__}: {error}"[:500], file=sys.stderr)
        return 1
    sys.stdout.buffer.write(MARK + msgspec.json.encode(rules) + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
