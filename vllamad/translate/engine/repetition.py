"""The end of an answer that only repeats itself, where the client set no limit.

Ollama ends an answer after 30 alike pieces in a row. vLLM looks for patterns of several tokens too,
by one count for all of them. Such patterns are the loops of small models, but also what people ask
for (a row of zeros), so the count is higher than Ollama's. An engine too old for it ignores it.
"""

from __future__ import annotations

from vllamad.translate.ollama.to_engine import CHAT, COMPLETIONS, EngineCall

LONGEST = 32  # tokens of a pattern

_LIMITS = ("max_tokens", "max_completion_tokens")


def stop_repetition(call: EngineCall, repetitions: int, *, limited: bool) -> EngineCall:
    """`call` with its answer ended after a pattern stood so many times in a row.

    Unchanged where the client set a limit of its own, where `repetitions` is 0, and for a route
    whose requests have no field for it.
    """
    if limited or not repetitions or call.path not in (CHAT, COMPLETIONS):
        return call
    field = {"max_pattern_size": LONGEST, "min_count": max(repetitions, 2)}
    return EngineCall(path=call.path, body=call.body | {"repetition_detection": field})


def has_limit(body: dict[str, object], context_length: int) -> bool:
    """Whether a relayed request limits its answer to less than the context, in tokens."""
    limits = [body.get(name) for name in _LIMITS]
    return any(
        isinstance(limit, int) and 0 <= limit < (context_length or limit + 1) for limit in limits
    )
