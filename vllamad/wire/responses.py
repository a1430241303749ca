"""Which fields of an OpenAI Responses request reach the engine? What is allowed, nothing else.

Nothing is kept between two requests: what would need a memory is refused. Hosted tools are too.
"""

from __future__ import annotations

from vllamad.errors import BadInput
from vllamad.wire import gojson
from vllamad.wire.allowed import (
    bounded,
    check_format,
    effort,
    inline,
    only,
    read_request,
    refuse,
    typed,
)
from vllamad.wire.openai import MAX_LOGPROBS

_LOGPROBS = "message.output_text.logprobs"
_REQUEST = frozenset({
    "frequency_penalty", "ignore_eos", "include_reasoning", "include_stop_str_in_output",
    "instructions", "logit_bias", "max_output_tokens", "max_tool_calls", "metadata", "min_p",
    "parallel_tool_calls", "presence_penalty", "reasoning", "repetition_penalty", "seed",
    "skip_special_tokens", "stop", "stop_token_ids", "stream", "temperature", "text",
    "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "truncation", "user",
})  # fmt: skip
_NO_MEMORY = "responses are not stored, send the whole conversation as input"
_REFUSED = {
    "previous_response_id": _NO_MEMORY,
    "conversation": _NO_MEMORY,
    "background": "a response ends with its connection",
    "prompt": "no prompts are stored, send instructions and input",
}
_ITEMS = {
    "message": frozenset({"content", "id", "role", "status", "type"}),
    "function_call": frozenset({
        "arguments", "call_id", "id", "name", "namespace", "status", "type",
    }),
    "function_call_output": frozenset({"call_id", "id", "output", "status", "type"}),
    "custom_tool_call": frozenset({"call_id", "id", "input", "name", "type"}),
    "custom_tool_call_output": frozenset({"call_id", "id", "output", "type"}),
    "reasoning": frozenset({"content", "id", "status", "summary", "type"}),
}  # fmt: skip
_TOOLS = ("function", "custom", "namespace")


def responses_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/responses` body: the model asked for, and the body for the engine.

    The caller puts the worker's own name into `model`. Raises BadInput.
    """
    name, asked, kept = read_request(body, "ResponsesRequest", _REQUEST)
    kept = typed(kept, "ResponsesRequest")
    refuse(asked, _REFUSED)
    bounded(kept, "top_logprobs", 0, MAX_LOGPROBS)
    if gojson.is_object(text := kept.get("text")):
        check_format(text.get("format"), "text.format")
    reasoning = kept.get("reasoning")
    if gojson.is_object(reasoning):
        kept["reasoning"] = reasoning | {"effort": effort(reasoning.get("effort"))}
    include = asked.get("include")
    if gojson.is_list(include) and _LOGPROBS in include:
        kept["include"] = [_LOGPROBS]  # the rest names what hosted tools would have found
    tools = kept.get("tools")
    for at, tool in enumerate(tools if gojson.is_list(tools) else ()):
        _check_tool(tool, at)
    return name, kept | {"input": _input(asked.get("input")), "store": False}


def _check_tool(value: object, at: int) -> None:
    kind = value.get("type") if gojson.is_object(value) else None
    if kind not in _TOOLS:
        raise BadInput(f"tools[{at}]: tool type {gojson.quoted(str(kind)[:40])} is not supported")


def _input(value: object) -> object:
    if isinstance(value, str):
        return value
    if not gojson.is_list(value):
        raise BadInput("input must be a string or array")
    items: list[object] = []
    for at, item in enumerate(value):
        try:
            items.append(_item(item))
        except BadInput as error:
            raise BadInput(f"input[{at}]: {error.message}") from None
    return items


def _item(value: object) -> dict[str, object]:
    if not gojson.is_object(value):
        raise BadInput("input item must be an object")
    kind = value.get("type") or ("message" if value.get("role") else None)
    if kind is None:
        raise BadInput("input item missing required 'type' field")
    if kind == "item_reference":
        raise BadInput(f"item_reference is not supported: {_NO_MEMORY}")
    if not isinstance(kind, str) or kind not in _ITEMS:
        raise BadInput(f"unknown input item type: {gojson.quoted(str(kind)[:40])}")
    item = {name: field for name, field in only(value, _ITEMS[kind]).items() if field is not None}
    item["type"] = kind
    for field in ("content", "output"):
        if gojson.is_list(parts := item.get(field)) and kind != "reasoning":
            item[field] = _parts(parts)
    if kind == "reasoning":
        item.setdefault("summary", [])
    if kind == "message" and item.get("role") == "assistant":
        _join(item)
    return item


def _parts(values: list[object]) -> list[dict[str, object]]:
    parts: list[dict[str, object]] = []
    for at, value in enumerate(values):
        try:
            parts.append(_part(value))
        except BadInput as error:
            raise BadInput(f"content[{at}]: {error.message}") from None
    return parts


def _part(value: object) -> dict[str, object]:
    """Rebuild one content part: text or an inline picture, never an address or a stored file."""
    kind = value.get("type") if gojson.is_object(value) else None
    if not gojson.is_object(value) or kind is None:
        raise BadInput("content part missing required 'type' field")
    match kind:
        case "input_text" | "output_text":
            return {"type": kind, "text": value.get("text")}
        case "refusal":
            return {"type": "output_text", "text": value.get("refusal")}
        case "input_image":
            return {"type": kind, "detail": "auto", "image_url": inline(value.get("image_url"))}
        case "input_file":
            raise BadInput("file inputs are not currently supported")
        case _:
            raise BadInput(f"unknown content type: {str(kind)[:40]}")


def _join(message: dict[str, object]) -> None:
    """Make one part of an assistant's words: the engine reads no more than the first."""
    parts = message.get("content")
    if gojson.is_list(parts):
        texts = [str(part.get("text") or "") for part in parts if gojson.is_object(part)]
        message["content"] = [{"type": "output_text", "text": "".join(texts), "annotations": []}]
