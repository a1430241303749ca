"""What vLLM 0.32 refuses of a request for chat or completions, in its own words. Standard library.

As recorded/bad-request.json has it for wrong types: pydantic's errors as Python prints them.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Refusal = tuple[str, str | None]  # the text, and the parameter it names

_NUMBERS = {
    "temperature": (0.0, 2.0), "top_p": (1e-9, 1.0), "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-9, 1e300),
}  # fmt: skip
_COUNTS = {
    "max_tokens": (1, 1 << 62), "max_completion_tokens": (1, 1 << 62), "top_k": (-1, 1 << 31),
    "n": (1, 16384), "seed": (-(1 << 63), (1 << 63) - 1), "min_tokens": (0, 1 << 62),
}  # fmt: skip
_FLAGS = ("stream", "ignore_eos", "include_stop_str_in_output", "skip_special_tokens")


def refused(path: str, body: Json) -> Refusal | None:
    """Why vLLM would not answer `body`; None where it would."""
    for name, (low, high) in (_NUMBERS | _COUNTS).items():
        value, kind = body.get(name), "float" if name in _NUMBERS else "int"
        if value is None:
            continue
        if not isinstance(value, int | float):
            return _dump(f"{kind}_parsing", name, value)
        if name in _COUNTS and value != int(value):
            return _dump("int_from_float", name, value)
        echoed = name == "max_tokens" and value == 0 and body.get("echo")
        if not low <= value <= high and not echoed:
            return f"{name} must be in [{low}, {high}], got {value}. (parameter={name})", name
    for name in _FLAGS:
        if not isinstance(body.get(name, False), bool):
            return _dump("bool_parsing", name, body[name])
    return _together(path, body)


def _together(path: str, body: Json) -> Refusal | None:
    """What no field is wrong in by itself."""
    greedy = body.get("temperature") == 0
    if greedy and (body.get("n") or 1) > 1:
        return f"n must be 1 when using greedy sampling, got {body['n']}.", None
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if body.get("stop") == "" or "" in stops:
        return "stop cannot contain an empty string.", None
    if body.get("tools") == []:
        return "`tools` must not be an empty array. Either provide at least one tool", "tools"
    talks = path.endswith(("chat/completions", "messages"))
    if talks and body.get("tool_choice") not in (None, "none"):
        if not body.get("tools"):
            return "When using `tool_choice`, `tools` must be set.", "tool_choice"
        if not isinstance(body["tool_choice"], dict | str):
            return _dump("literal_error", "tool_choice", body["tool_choice"])
    if body.get("stream_options") and not body.get("stream"):
        return "Stream options can only be defined when `stream=True`.", "stream_options"
    if (body.get("min_tokens") or 0) > (body.get("max_tokens") or 1 << 62):
        return f"min_tokens must be less than or equal to max_tokens={body['max_tokens']}", None
    if path.endswith("chat/completions") and body.get("top_logprobs") and not body.get("logprobs"):
        return "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"
    return None


def _dump(kind: str, name: str, value: object) -> Refusal:
    error = {"type": kind, "loc": f"body.{name}", "msg": "Input should be valid", "input": value}
    return f"1 validation error:\n  {error}", f"body.{name}"
