"""Which fields of an Anthropic request reach the engine? A list of what is allowed, nothing else.

Blocks are rebuilt key by key: pictures are inline, tools are the client's own, and what only
Anthropic's servers could do is refused, not left out.
"""

from __future__ import annotations

from vllamad.errors import BadInput
from vllamad.wire import gojson
from vllamad.wire.allowed import check_format, only, read_request, typed
from vllamad.wire.fields import integer, misfit
from vllamad.wire.images import read_image

_STRUCT = "MessagesRequest"
_COUNTED = frozenset({"output_config", "thinking", "tool_choice"})
_ASKED = _COUNTED | {
    "max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p",
}  # fmt: skip
_TOOL = frozenset({"description", "input_schema", "name", "strict"})
_BLOCKS = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error"}),
}
# Traces of work done elsewhere, in a conversation begun elsewhere: nothing for a model to read.
_SKIPPED = ("redacted_thinking", "server_tool_use", "web_search_tool_result")


def messages_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/messages` body: the model asked for, and the body for the engine.

    The caller puts the worker's own name into `model`. Raises BadInput with Ollama's texts, in
    its order.
    """
    name, asked, kept = read_request(body, _STRUCT, _ASKED)
    limit = asked.get("max_tokens")
    if limit is None or integer(limit, f"{_STRUCT}.max_tokens") < 1:
        raise BadInput("max_tokens is required and must be positive")
    return name, typed(kept, _STRUCT) | _conversation(asked)


def count_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/messages/count_tokens` body, as `messages_request` does."""
    name, asked, kept = read_request(body, _STRUCT, _COUNTED)
    return name, kept | _conversation(asked)


def _conversation(asked: dict[str, object]) -> dict[str, object]:
    messages = asked.get("messages")
    if not gojson.is_list(messages) or not messages:
        raise BadInput("messages is required")
    rebuilt = [_message(message) for message in messages]
    fields: dict[str, object] = {"messages": [one for one in rebuilt if one["content"] != []]}
    if system := asked.get("system"):
        fields["system"] = _content(system, "system")
    if gojson.is_object(output := asked.get("output_config")):
        check_format(output.get("format"), "output_config.format")
    tools = asked.get("tools")
    if gojson.is_list(tools) and tools:
        fields["tools"] = [_tool(tool) for tool in tools]
    return fields


def _message(value: object) -> dict[str, object]:
    if not gojson.is_object(value):
        raise misfit(value, f"{_STRUCT}.messages", "anthropic.MessageParam")
    return {"role": value.get("role"), "content": _content(value.get("content"), "messages")}


def _content(value: object, where: str) -> str | list[dict[str, object]]:
    if isinstance(value, str):
        return value
    if not gojson.is_list(value):
        raise BadInput(f"{where}: content must be a text or a list of blocks")
    return [rebuilt for block in value if (rebuilt := _block(block)) is not None]


def _block(value: object) -> dict[str, object] | None:
    """Rebuild a block; None for one that is skipped."""
    kind = value.get("type") if gojson.is_object(value) else None
    if not gojson.is_object(value) or not isinstance(kind, str):
        raise BadInput("content block missing required 'type' field")
    if kind in _SKIPPED:
        return None
    if kind == "image":
        return {"type": "image", "source": _source(value.get("source"))}
    if kind not in _BLOCKS:
        raise BadInput(f"unknown content type: {kind[:40]}")
    block = only(value, _BLOCKS[kind])
    if kind == "tool_use":
        for field in ("id", "name"):
            if not block.get(field):
                raise BadInput(f"tool_use block missing required '{field}' field")
    if kind == "tool_result" and gojson.is_list(block.get("content")):
        block["content"] = _content(block["content"], "tool_result")
    return block


def _source(value: object) -> dict[str, object]:
    """Rebuild the source of a picture: its bytes, never an address."""
    if not gojson.is_object(value):
        raise BadInput("invalid image source")
    kind = value.get("type")
    if kind != "base64":
        raise BadInput(
            f"invalid image source type: {str(kind)[:40]}. Only base64 images are supported."
        )
    picture = read_image(value.get("data"), f"{_STRUCT}.messages.content.source.data")
    return {"type": "base64", "media_type": picture.media_type, "data": picture.data}


def _tool(value: object) -> dict[str, object]:
    if not gojson.is_object(value):
        raise misfit(value, f"{_STRUCT}.tools", "anthropic.Tool")
    kind, name = value.get("type"), gojson.quoted(str(value.get("name", "")))
    if kind not in (None, "custom"):
        raise BadInput(f"tool type {gojson.quoted(str(kind)[:40])} is not supported")
    if not gojson.is_object(value.get("input_schema")):
        raise BadInput(f"invalid input_schema for tool {name}: it must be an object")
    return only(value, _TOOL)
