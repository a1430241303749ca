"""Finds the rules of a chat template by rendering test conversations with it.

Runs as a process (`python -m vllamad.models.checkpoint.template_probe`) that limits its own time
and memory, since a template is untrusted code. Reads the template from standard input and writes
the rules to standard output, on the line that begins with MARK.
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

# The marker of Kimi K2, whose calls are numbered over the conversation.
_KIMI: Final = "<|tool_calls_section_begin|>"
_DEVELOPER: Final = ('"developer"', "'developer'")  # otherwise vLLM turns it into a system message
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "offered",
        "description": "d",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}


class ProbeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request to the process."""

    template: str
    bos_token: str = ""
    eos_token: str = ""


def _conversation(turns: str) -> list[ChatMessage]:
    """Make a conversation from letters; each turn has unique words.

    s, d, u, a: system, developer, user, assistant; S, U, A: in two parts; e, b: user, assistant
    without text; c, w, m: one call, one with text, two; t: the result of the next call.
    """
    messages: list[ChatMessage] = []
    waiting: list[str] = []
    roles = {"s": "system", "d": "developer", "u": "user", "e": "user", "t": "tool"}
    for index, letter in enumerate(turns):
        words = f"wordqzx{index}y"
        message: ChatMessage = {"role": roles.get(letter.lower(), "assistant"), "content": words}
        if letter in "becm":
            message["content"] = ""
        if letter.isupper():
            parts = (words, f"{words}z")
            message["content"] = [{"type": "text", "text": part} for part in parts]
        if letter in "cwm":
            waiting = [f"call_with_a_long_id_{index}_{n}" for n in range(1 + (letter == "m"))]
            message["tool_calls"] = [_call(id, f"qzx{index}y{n}") for n, id in enumerate(waiting)]
        if letter == "t":
            message["tool_call_id"] = waiting.pop(0) if waiting else "call_that_is_not_there"
        messages.append(message)
    return messages


def _call(id: str, argument: str) -> ChatMessage:
    function = {"name": f"name{argument}", "arguments": {"a": f"value{argument}"}}
    return {"id": id, "type": "function", "function": function}


# Rule, value, and the conversations that must render for it, the lenient values first: the first
# that holds is the rule. Rules further down are still at their strictest value meanwhile.
_TESTS: Final[tuple[tuple[str, object, str], ...]] = (
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


def find_rules(request: ProbeRequest) -> TemplateRules:
    """Find the rules of a template; one that renders no conversation gets ACCEPTS_ALL.

    Raises jinja2's errors for an invalid template.
    """
    probe = _Probe(request)
    if not probe.forms:
        return ACCEPTS_ALL
    rules = STRICTEST
    settled: set[str] = set()
    for name, value, conversations in _TESTS:
        tried = msgspec.structs.replace(rules, **{name: value})
        if name not in settled and probe.holds(tried, conversations.split()):
            settled.add(name)
            rules = tried
    if not any(name in request.template for name in _DEVELOPER):
        rules = msgspec.structs.replace(rules, developer=False)
    if _KIMI in request.template:
        rules = msgspec.structs.replace(rules, call_ids="kimi")
    return rules


class _Probe:
    """Renders conversations with one template."""

    def __init__(self, request: ProbeRequest) -> None:
        self._renderer = Renderer(
            request.template, bos_token=request.bos_token, eos_token=request.eos_token
        )
        # As texts or as lists of parts: vLLM derives from the template which of them it takes.
        user = _conversation("u")
        self.forms = [form for form in (False, True) if self._renders(user, user, form)]

    def holds(self, rules: TemplateRules, conversations: Sequence[str]) -> bool:
        """Whether all conversations, changed to fit `rules`, render with all their words."""
        for turns in conversations:
            original = _conversation(turns)
            fitted = conform(original, rules)
            if not all(self._renders(fitted, original, form) for form in self.forms):
                return False
        return True

    def _renders(self, fitted: list[ChatMessage], original: list[ChatMessage], parts: bool) -> bool:
        tools = [_TOOL] if any("tool_calls" in message for message in fitted) else None
        try:
            prompt = self._renderer.render(fitted, tools=tools, parts=parts)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a template can raise anything
            return False
        return all(word in prompt for word in _words(original))


def _words(messages: list[ChatMessage]) -> list[str]:
    """The words the prompt must contain: of the texts, and the names and arguments of calls."""
    words: list[str] = []
    for message in messages:
        words += re.findall(r"word\w+", str(message["content"]))
        for call in calls_of(message):
            words += re.findall(r"\w+qzx\w*", str(call["function"]))
    return words


def main() -> int:
    """Answer the request on standard input. Returns the exit status."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME, TIME))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    try:
        rules = find_rules(request)
    except (jinja2.TemplateError, RecursionError, MemoryError, ValueError) as error:
        print(f"{type(error).__name__}: {error}"[:500], file=sys.stderr)
        return 1
    sys.stdout.buffer.write(MARK + msgspec.json.encode(rules) + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
