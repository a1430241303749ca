"""What of a relayed request depends on its model and the worker that will answer it?

The counterpart of `requests.py` for routes whose requests are the engine's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vllamad.errors import NotSupported
from vllamad.translate.go.json_decoder import is_list, is_object
from vllamad.translate.ollama.to_engine import ModelTraits

# What each API calls its media: what a model takes, and the capability that says so.
_SENSES = {
    "image_url": ("image", "vision"),
    "input_image": ("image", "vision"),
    "image": ("image", "vision"),
    "input_audio": ("audio", "audio"),
}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class AnswerForm(NamedTuple):
    """What is made of an answer beyond what the engine can be asked for."""

    copies: int = 1  # of each choice
    muted: bool = False  # the prompt is read, and nothing is said


PLAIN = AnswerForm()


def check_tools(body: dict[str, object], traits: ModelTraits) -> None:
    """Refuse tools that may be called, where the model cannot; raises NotSupported."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if is_object(choice) else choice
    if body.get("tools") and kind != "none" and "tools" not in traits.capabilities:
        raise NotSupported(f"{traits.full_name} does not support tools")


def check_media(body: dict[str, object], traits: ModelTraits) -> None:
    """Refuse pictures and sound where the model takes none, as /api does; raises NotSupported."""
    for kind in _kinds([body.get("messages"), body.get("input")]):
        sense, capability = _SENSES[kind]
        if capability not in traits.capabilities:
            raise NotSupported(f"this model does not support {sense} input")


def fit_to_worker(
    body: dict[str, object], traits: ModelTraits, *, served_name: str, context_length: int
) -> dict[str, object]:
    """Fit an allowed request to its worker: the name, the limits, the switch for thinking.

    More tokens than the context holds are no more than it holds, a negative number is as many as
    it holds: vLLM refuses both, Ollama neither. `context_length` is in tokens.
    """
    fields = body | {"model": served_name}
    for name in _LIMITS:
        limit = fields.get(name)
        if isinstance(limit, int) and not 0 <= limit <= (context_length or limit):
            fields[name] = context_length
        least, limit = fields.get("min_tokens"), fields.get(name)
        if isinstance(least, int) and isinstance(limit, int):
            fields["min_tokens"] = min(least, limit)
    wanted = _wants_thinking(fields)
    if "thinking" not in traits.capabilities:
        fields.pop("thinking", None)  # let through: clients ask every model for it
        return fields
    if is_object(thinking := fields.get("thinking")) and thinking.get("type") == "enabled":
        # Not every model's parser can count against a budget; vLLM refuses one it cannot keep.
        fields["thinking"] = {"type": "adaptive"}
    if wanted is not None and not traits.always_thinks:
        # Two names for one switch: which one a template knows differs, and it ignores the other.
        fields["chat_template_kwargs"] = {"enable_thinking": wanted, "thinking": wanted}
    return fields


def take_answer_form(body: dict[str, object]) -> tuple[dict[str, object], AnswerForm]:
    """A request as the engine takes it, and what is left to be done with the answer.

    The engine refuses several answers where all are greedy, and so alike, and an answer of no
    tokens, unless it only repeats the prompt.
    """
    fields, copies = dict(body), 1
    several = fields.get("n")
    if fields.get("temperature") == 0 and isinstance(several, int) and several > 1:
        fields["n"], copies = 1, several
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    muted = limit == 0 and not fields.get("echo")
    if not fields.get("echo"):
        fields |= {name: 1 for name in _LIMITS if fields.get(name) == 0}
    return fields, AnswerForm(copies, muted) if muted or copies > 1 else PLAIN


def _kinds(value: object) -> Iterator[str]:
    """The kinds of media in messages, wherever content stands in them."""
    if is_list(value):
        for item in value:
            yield from _kinds(item)
    elif is_object(value):
        if (kind := value.get("type")) in _SENSES:
            yield str(kind)
        yield from _kinds(value.get("content"))
        yield from _kinds(value.get("output"))


def _wants_thinking(fields: dict[str, object]) -> bool | None:
    """What the client says of it, in the words of any of the APIs; None for nothing."""
    if is_object(thinking := fields.get("thinking")):
        return thinking.get("type") != "disabled"
    effort = fields.get("reasoning_effort")
    if is_object(reasoning := fields.get("reasoning")):
        effort = reasoning.get("effort")
    return None if effort is None else effort != "none"
