"""The fields of an OpenAI Responses request that reach the engine: an allowlist.

Nothing is stored between two requests: a request that needs stored state is refused. Hosted tools
and the items of their calls are left out, not refused: many clients cannot omit them.
"""

from __future__ import annotations

import re

from vllamad.errors import BadInput
from vllamad.translate.anthropic.blocks import decode_text
from vllamad.translate.engine.request_fields import (
    LEFT_OUT,
    check_answer_format,
    check_bounds,
    pick_allowed,
    read_effort,
    read_inline_image,
    read_request,
    read_stop,
    read_stop_ids,
    refuse_unsupported,
    without_tools,
)
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import (
    Read,
    anything,
    boolean,
    lowered,
    mapping,
    number,
    read_fields,
    string,
    whole,
)
from vllamad.translate.openai.chat_fields import MAX_LOGPROBS

_STRUCT = "ResponsesRequest"
_WHERE = f"{_STRUCT}.input.content"
_LOGPROBS = "message.output_text.logprobs"
_REQUEST: dict[str, Read[object]] = {
    "frequency_penalty": number("float64"),
    "ignore_eos": boolean,
    "include_reasoning": boolean,
    "include_stop_str_in_output": boolean,
    "instructions": string,
    "logit_bias": mapping,
    "max_output_tokens": whole,
    "max_tool_calls": whole,
    "metadata": mapping,
    "min_p": number("float64"),
    "parallel_tool_calls": boolean,
    "presence_penalty": number("float64"),
    "reasoning": anything,
    "repetition_penalty": number("float64"),
    "seed": whole,
    "skip_special_tokens": boolean,
    "stop": read_stop,
    "stop_token_ids": read_stop_ids,
    "stream": boolean,
    "temperature": number("float64"),
    "text": mapping,
    "tool_choice": anything,
    "tools": anything,
    "top_k": whole,
    "top_logprobs": whole,
    "top_p": number("float64"),
    "truncation": string,
    "user": string,
}
_NOT_STORED = "responses are not stored, send the whole conversation as input"
_REFUSED = {
    "previous_response_id": _NOT_STORED,
    "conversation": _NOT_STORED,
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
_CHOICES = ("none", "auto", "required")
_TEXT_FILE = re.compile(r"data:text/[\w.+-]+(?:;charset=[\w-]+)?;base64,", re.IGNORECASE)

Item = dict[str, object]


def responses_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/responses` body: the model's name, and the body for the engine.

    The caller puts the worker's served name into `model`, and removes LEFT_OUT: the kinds of tools,
    items and parts that are left out. Raises BadInput.
    """
    left_out: set[str] = set()
    name, request, allowed = read_request(body, _STRUCT, frozenset(_REQUEST))
    kept = read_fields(allowed, _STRUCT, f"openai.{_STRUCT}", _REQUEST)
    refuse_unsupported(request, _REFUSED)
    check_bounds(kept, "top_logprobs", 0, MAX_LOGPROBS)
    if json_decoder.is_object(text := kept.get("text")):
        check_answer_format(lowered(text).get("format"), "text.format")
    if json_decoder.is_object(reasoning := kept.get("reasoning")):
        reasoning = lowered(reasoning)
        kept["reasoning"] = reasoning | {"effort": read_effort(reasoning.get("effort"))}
    include = request.get("include")
    if json_decoder.is_list(include) and _LOGPROBS in include:
        kept["include"] = [_LOGPROBS]  # the other values ask for results of hosted tools
    fields: dict[str, object] = {"input": _input(request.get("input"), left_out), "store": False}
    fields |= _with_tools(kept, left_out)
    return name, (fields | {LEFT_OUT: sorted(left_out)} if left_out else fields)


def _with_tools(fields: dict[str, object], left_out: set[str]) -> dict[str, object]:
    """Keep the tools that run at the client, and a choice of one of them."""
    tools = fields.get("tools")
    client_tools: list[Item] = []
    for at, value in enumerate(tools if json_decoder.is_list(tools) else ()):
        tool = lowered(value) if json_decoder.is_object(value) else {}
        if not isinstance(kind := tool.get("type"), str):
            raise BadInput(f"tools[{at}]: missing required 'type' field")
        if kind in _TOOLS:
            client_tools.append(tool)
        else:
            left_out.add(f"tool {kind[:40]}")
    if not client_tools:
        return without_tools(fields)
    fields = fields | {"tools": client_tools}
    if not _is_among(fields.get("tool_choice"), client_tools):
        del fields["tool_choice"]
    return fields


def _is_among(choice: object, tools: list[Item]) -> bool:
    """True if `choice` is absent, or one that the engine can make among `tools`."""
    if choice is None or isinstance(choice, str):
        return choice in (None, *_CHOICES)
    chosen = lowered(choice) if json_decoder.is_object(choice) else {}
    same_type = (tool for tool in tools if tool.get("type") == chosen.get("type"))
    return any(tool.get("name") == chosen.get("name") for tool in same_type)


def _input(value: object, left_out: set[str]) -> object:
    if isinstance(value, str):
        return value
    if not json_decoder.is_list(value):
        raise BadInput("input must be a string or array")
    items: list[object] = []
    for at, item in enumerate(value):
        try:
            read = _item(item, left_out)
        except BadInput as error:
            raise BadInput(f"input[{at}]: {error.message}") from None
        if read is not None:
            items.append(read)
    return items or ""


def _item(value: object, left_out: set[str]) -> Item | None:
    """Rebuild an item; None for one that is left out."""
    if not json_decoder.is_object(value):
        raise BadInput("input item must be an object")
    fields = lowered(value)
    kind = fields.get("type") or ("message" if fields.get("role") else None)
    if not isinstance(kind, str):
        raise BadInput("input item missing required 'type' field")
    if kind == "item_reference":
        raise BadInput(f"item_reference is not supported: {_NOT_STORED}")
    if kind not in _ITEMS or _is_sealed(kind, fields):
        left_out.add(f"item {kind[:40]}")
        return None
    item = pick_allowed(fields, _ITEMS[kind])
    item["type"] = kind
    for field in ("content", "output"):
        if json_decoder.is_list(parts := item.get(field)) and kind != "reasoning":
            item[field] = _parts(parts, left_out) or ""
    if kind == "reasoning":
        item.setdefault("summary", [])
    if kind == "message" and item.get("role") == "assistant":
        _join(item)
    return item


def _is_sealed(kind: str, fields: Item) -> bool:
    """True for reasoning that only the server which wrote it can read."""
    return kind == "reasoning" and not fields.get("content") and not fields.get("summary")


def _parts(values: list[object], left_out: set[str]) -> list[Item]:
    parts: list[Item] = []
    for at, value in enumerate(values):
        try:
            part = _part(value, left_out)
        except BadInput as error:
            raise BadInput(f"content[{at}]: {error.message}") from None
        if part is not None:
            parts.append(part)
    return parts


def _part(value: object, left_out: set[str]) -> Item | None:
    """Rebuild one content part: text or an inline image; None for one that is left out."""
    part = lowered(value) if json_decoder.is_object(value) else {}
    kind = part.get("type")
    if not isinstance(kind, str):
        raise BadInput("content part missing required 'type' field")
    match kind:
        case "input_text" | "output_text":
            return {"type": kind, "text": string(part.get("text", ""), f"{_WHERE}.text")}
        case "refusal":
            return {
                "type": "output_text",
                "text": string(part.get("refusal", ""), f"{_WHERE}.refusal"),
            }
        case "input_image" if "image_url" in part or "file_id" not in part:
            return {
                "type": kind,
                "detail": "auto",
                "image_url": read_inline_image(part.get("image_url")),
            }
        case "input_file" if (text := _file_text(part)) is not None:
            return {"type": "input_text", "text": text}
        case _:
            left_out.add(f"part {kind[:40]}")
            return None


def _file_text(part: Item) -> str | None:
    """The name and text of a file that is a text data URI; None for any other file."""
    data = part.get("file_data")
    head = _TEXT_FILE.match(data) if isinstance(data, str) else None
    if head is None:
        return None
    text = decode_text(head.string[head.end() :])
    name = part.get("filename")
    return f"{name}\n{text}" if text is not None and isinstance(name, str) else text


def _join(message: Item) -> None:
    """Join an assistant's text into one part: the engine reads only the first."""
    parts = message.get("content")
    if json_decoder.is_list(parts):
        texts = [str(part.get("text") or "") for part in parts if json_decoder.is_object(part)]
        message["content"] = [{"type": "output_text", "text": "".join(texts), "annotations": []}]
