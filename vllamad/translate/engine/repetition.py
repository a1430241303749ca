"""Stops a response that only repeats itself, where the client set no limit.

Ollama stops after 30 equal pieces in a row. vLLM also finds patterns of several tokens, with one
count for all of them. A pattern may be a loop of a small model or a legitimate response (a row of
zeros), so the count is higher than Ollama's. An engine that is too old for the field ignores it.
"""

from __future__ import annotations

from vllamad.translate.ollama.to_engine import CHAT, COMPLETIONS, EngineCall

LONGEST = 32  # tokens of a pattern

_LIMITS = ("max_tokens", "max_completion_tokens")


def stop_repetition(call: EngineCall, repetitions: int, *, limited: bool) -> EngineCall:
    """Make the engine stop after `repetitions` of a pattern in a row.

    `call` is unchanged if the client set a limit, if `repetitions` is 0, and for a route without
    the field.
    """
    if limited or not repetitions or call.path not in (CHAT, COMPLETIONS):
        return call
    field = {"max_pattern_size": LONGEST, "min_count": max(repetitions, 2)}
    return EngineCall(path=call.path, body=call.body | {"repetition_detection": field})


def has_limit(body: dict[str, object], context_length: int) -> bool:
    """True if a relayed request limits its response to less than the context, in tokens."""
    limits = [body.get(name) for name in _LIMITS]
    return any(
        isinstance(limit, int) and 0 <= limit < (context_length or limit + 1) for limit in limits
    )
