"""The fields of an Anthropic request that reach the engine: an allowlist.

Blocks are rebuilt key by key. Tools and blocks that need Anthropic's servers are left out,
not refused: many clients cannot omit them.
"""

from __future__ import annotations

from vllamad.errors import BadInput
from vllamad.translate.anthropic.blocks import read_contents
from vllamad.translate.engine.request_fields import (
    LEFT_OUT,
    check_answer_format,
    pick_allowed,
    read_request,
    without_tools,
)
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import (
    Read,
    boolean,
    integer,
    list_of,
    lowered,
    mapping,
    misfit,
    number,
    read_fields,
    string,
)
from vllamad.translate.ollama.options import MAX_STOPS

PACKAGE = "anthropic"
_STRUCT = "MessagesRequest"

_COUNTED: dict[str, Read[object]] = {
    "output_config": mapping,
    "thinking": mapping,
    "tool_choice": mapping,
}
_SAMPLED: dict[str, Read[object]] = _COUNTED | {
    "max_tokens": integer,
    "stop_sequences": list_of(string, "[]string", MAX_STOPS),
    "stream": boolean,
    "temperature": number("float64"),
    "top_k": integer,
    "top_p": number("float64"),
}
_TOOL = frozenset({"description", "input_schema", "name", "strict"})
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CHOICES = ("auto", "any", "tool", "none")


def messages_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/messages` body: the model's name, and the body for the engine.

    The caller puts the worker's served name into `model`, and removes LEFT_OUT: the kinds of tools
    and blocks that are left out. Raises BadInput with Ollama's texts, in its order.
    """
    name, request, kept = _read(body, _SAMPLED)
    if not (limit := request.get("max_tokens")) or not isinstance(limit, int) or limit < 1:
        raise BadInput("max_tokens is required and must be positive")
    return name, _conversation(request, kept)


def count_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/messages/count_tokens` body, as `messages_request` does."""
    name, request, kept = _read(body, _COUNTED)
    return name, _conversation(request, kept)


def _read(
    body: bytes, table: dict[str, Read[object]]
) -> tuple[str, dict[str, object], dict[str, object]]:
    name, request, kept = read_request(body, _STRUCT, frozenset(table), package=PACKAGE)
    return name, request, read_fields(kept, _STRUCT, f"{PACKAGE}.{_STRUCT}", table)


def _conversation(request: dict[str, object], kept: dict[str, object]) -> dict[str, object]:
    left_out: set[str] = set()
    messages = request.get("messages")
    if not json_decoder.is_list(messages) or not messages:
        raise BadInput("messages is required")
    rebuilt = [_message(message, left_out) for message in messages]
    fields = kept | {"messages": [message for message in rebuilt if message["content"] != []]}
    if not fields["messages"]:
        fields["messages"] = [{"role": "user", "content": ""}]
    if system := request.get("system"):
        fields["system"] = read_contents(system, "system", left_out)
    _check_output(fields)
    tools = request.get("tools")
    fields = _with_tools(fields, tools if json_decoder.is_list(tools) else [], left_out)
    return fields | {LEFT_OUT: sorted(left_out)} if left_out else fields


def _message(value: object, left_out: set[str]) -> dict[str, object]:
    if not json_decoder.is_object(value):
        raise misfit(value, f"{_STRUCT}.messages", f"{PACKAGE}.MessageParam")
    fields = lowered(value)
    role = string(fields.get("role", ""), f"{_STRUCT}.messages.role")
    if role not in _ROLES:
        raise BadInput(f"messages: role {json_decoder.quoted(role[:40])} is not supported")
    return {
        "role": _ROLES[role],
        "content": read_contents(fields.get("content"), "messages", left_out),
    }


def _check_output(fields: dict[str, object]) -> None:
    """Check the response format, and leave out an effort that the engine does not know."""
    if not json_decoder.is_object(output := fields.get("output_config")):
        return
    output = lowered(output)
    check_answer_format(output.get("format"), "output_config.format")
    if output.get("effort") not in _EFFORTS:
        output.pop("effort", None)
    fields["output_config"] = output


def _with_tools(
    fields: dict[str, object], tools: list[object], left_out: set[str]
) -> dict[str, object]:
    """Keep the tools that run at the client, and a choice of one of them."""
    read = (_tool(tool, left_out) for tool in tools)
    client_tools = [tool for tool in read if tool is not None]
    if not client_tools:
        return without_tools(fields)
    choice = fields.get("tool_choice")
    chosen = lowered(choice) if json_decoder.is_object(choice) else {}
    known = chosen.get("type") in _CHOICES
    if not known or (chosen["type"] == "tool" and chosen.get("name") not in _names(client_tools)):
        fields = {name: value for name, value in fields.items() if name != "tool_choice"}
    return fields | {"tools": client_tools}


def _names(tools: list[dict[str, object]]) -> set[object]:
    return {tool.get("name") for tool in tools}


def _tool(value: object, left_out: set[str]) -> dict[str, object] | None:
    """Read a tool; None for one of Anthropic's own types."""
    if not json_decoder.is_object(value):
        raise misfit(value, f"{_STRUCT}.tools", f"{PACKAGE}.Tool")
    fields = lowered(value)
    kind = fields.get("type", "custom")
    if kind != "custom":
        left_out.add(f"tool {str(kind)[:40]}")
        return None
    if not json_decoder.is_object(fields.get("input_schema")):
        name = json_decoder.quoted(str(fields.get("name", ""))[:64])
        raise BadInput(f"invalid input_schema for tool {name}: it must be an object")
    return pick_allowed(fields, _TOOL)
