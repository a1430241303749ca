"""What of a relayed request depends on its model and the worker that will answer it?

The counterpart of `requests.py` for routes whose requests are the engine's own.
"""

from __future__ import annotations

from vllamad.errors import NotSupported
from vllamad.wire.gojson import is_object
from vllamad.wire.requests import ModelTraits

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def check_tools(body: dict[str, object], traits: ModelTraits) -> None:
    """Refuse tools that may be called, where the model cannot; raises NotSupported."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if is_object(choice) else choice
    if body.get("tools") and kind != "none" and "tools" not in traits.capabilities:
        raise NotSupported(f"{traits.full_name} does not support tools")


def fitted(
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


def _wants_thinking(fields: dict[str, object]) -> bool | None:
    """What the client says of it, in the words of any of the APIs; None for nothing."""
    if is_object(thinking := fields.get("thinking")):
        return thinking.get("type") != "disabled"
    effort = fields.get("reasoning_effort")
    if is_object(reasoning := fields.get("reasoning")):
        effort = reasoning.get("effort")
    return None if effort is None else effort != "none"
