"""Fits a relayed request to its model and to the worker that answers it.

The counterpart of `ollama/to_engine.py` for routes whose requests have the engine's form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vllamad.errors import NotSupported
from vllamad.translate.go.json_decoder import is_list, is_object
from vllamad.translate.ollama.to_engine import ModelTraits

# The content types of media in each API: the kind of input, and the capability it requires.
_MEDIA = {
    "image_url": ("image", "vision"),
    "input_image": ("image", "vision"),
    "image": ("image", "vision"),
    "input_audio": ("audio", "audio"),
}
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class AnswerForm(NamedTuple):
    """The changes to a response that the engine cannot make itself."""

    copies: int = 1  # of each choice
    muted: bool = False  # the response is empty; the prompt is only read


PLAIN = AnswerForm()


def check_tools(body: dict[str, object], traits: ModelTraits) -> None:
    """Refuse tools that may be called if the model cannot call them. Raises NotSupported."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if is_object(choice) else choice
    if body.get("tools") and kind != "none" and "tools" not in traits.capabilities:
        raise NotSupported(f"{traits.full_name} does not support tools")


def check_media(body: dict[str, object], traits: ModelTraits) -> None:
    """Refuse images and audio that the model does not accept. Raises NotSupported, as on /api."""
    for kind in _kinds([body.get("messages"), body.get("input")]):
        media, capability = _MEDIA[kind]
        if capability not in traits.capabilities:
            raise NotSupported(f"this model does not support {media} input")


def fit_to_worker(
    body: dict[str, object], traits: ModelTraits, *, served_name: str, context_length: int
) -> dict[str, object]:
    """Fit an allowed request to its worker: the name, the limits, the switch for thinking.

    A limit above the context length, or below zero, becomes the context length: vLLM refuses both,
    Ollama neither. `context_length` is in tokens.
    """
    fields = body | {"model": served_name}
    for name in _LIMITS:
        limit = fields.get(name)
        if isinstance(limit, int) and not 0 <= limit <= (context_length or limit):
            fields[name] = context_length
        least, limit = fields.get("min_tokens"), fields.get(name)
        if isinstance(least, int) and isinstance(limit, int):
            fields["min_tokens"] = min(least, limit)
    thinks = _wants_thinking(fields)
    if "thinking" not in traits.capabilities:
        fields.pop("thinking", None)  # not refused: clients send it to every model
        return fields
    if is_object(thinking := fields.get("thinking")) and thinking.get("type") == "enabled":
        # vLLM refuses a thinking budget that the model's parser cannot count.
        fields["thinking"] = {"type": "adaptive"}
    if thinks is not None and not traits.always_thinks:
        # Two names for one switch: a template knows one of them and ignores the other.
        fields["chat_template_kwargs"] = {"enable_thinking": thinks, "thinking": thinks}
    return fields


def take_answer_form(body: dict[str, object]) -> tuple[dict[str, object], AnswerForm]:
    """Split a request into one that the engine accepts and the changes to its response.

    The engine refuses several greedy choices, which are equal, and a response of no tokens unless
    it repeats the prompt.
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
    """The types of media in messages, at any depth of their content."""
    if is_list(value):
        for item in value:
            yield from _kinds(item)
    elif is_object(value):
        if (kind := value.get("type")) in _MEDIA:
            yield str(kind)
        yield from _kinds(value.get("content"))
        yield from _kinds(value.get("output"))


def _wants_thinking(fields: dict[str, object]) -> bool | None:
    """True or false as the fields of any API switch thinking; None if they do not."""
    if is_object(thinking := fields.get("thinking")):
        return thinking.get("type") != "disabled"
    effort = fields.get("reasoning_effort")
    if is_object(reasoning := fields.get("reasoning")):
        effort = reasoning.get("effort")
    return None if effort is None else effort != "none"
