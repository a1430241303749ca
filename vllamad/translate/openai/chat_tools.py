"""The tools of `/v1/chat/completions` and the choice among them.

Tools other than functions run on OpenAI's servers: they are left out, and so is a choice of them.
"""

from __future__ import annotations

from typing import cast

from vllamad.errors import BadInput
from vllamad.translate.engine.request_fields import MAX_TOOLS, without_tools
from vllamad.translate.go.fields import (
    Read,
    anything,
    boolean,
    list_of,
    lowered,
    misfit,
    read_fields,
    string,
)
from vllamad.translate.go.json_decoder import is_list, is_object, quoted

ChatTool = dict[str, object]

_CHOICES = {"none": "none", "auto": "auto", "required": "required", "any": "required"}


def read_tools(value: object, where: str) -> list[ChatTool]:
    """Read the functions among the tools. Raises BadInput."""
    return [tool for tool in _tools(value, where) if tool is not None]


def hosted_kinds(value: object) -> list[str]:
    """The kinds of the tools that `read_tools` leaves out, each once, sorted."""
    listed = [lowered(tool) for tool in (value if is_list(value) else []) if is_object(tool)]
    return sorted({str(tool["type"])[:40] for tool in listed if _is_hosted(tool)})


def _is_hosted(tool: ChatTool) -> bool:
    return "function" not in tool and tool.get("type", "function") != "function"


def with_tool_choice(fields: dict[str, object]) -> dict[str, object]:
    """Rewrite `tool_choice` in a request's fields to the form that the engine expects.

    It is removed if there are no tools. Raises BadInput for an unknown function or value.
    """
    given = cast("list[ChatTool]", fields.get("tools", []))
    choice = fields.get("tool_choice")
    kept = {key: value for key, value in fields.items() if key != "tool_choice"}
    if not given:
        return without_tools(kept)
    if isinstance(choice, str):
        return kept | {"tool_choice": _word(choice)}
    named = lowered(choice) if is_object(choice) else {}
    kind = named.get("type")
    if kind == "function":
        name = _name(named)
        if name not in map(_name, given):
            text = quoted(str(name)[:64])
            raise BadInput(f"tool_choice: the function {text} is not in tools")
        return kept | {"tool_choice": {"type": "function", "function": {"name": name}}}
    if kind == "allowed_tools":
        return kept | _allowed(given, named.get("allowed_tools"))
    return kept | {"tool_choice": _CHOICES[str(kind)]} if kind in _CHOICES else kept


def _word(choice: str) -> str:
    if choice not in _CHOICES:
        raise BadInput(
            f"invalid tool_choice: {quoted(choice[:40])}"
            ' (must be "none", "auto", "required", or a function)'
        )
    return _CHOICES[choice]


def _allowed(given: list[ChatTool], value: object) -> dict[str, object]:
    """Read OpenAI's choice of allowed tools: the other tools are left out."""
    allowed = lowered(value) if is_object(value) else {}
    listed = allowed.get("tools")
    names = {_name(tool) for tool in listed if is_object(tool)} if is_list(listed) else ()
    chosen = [tool for tool in given if _name(tool) in names]
    if not chosen:
        raise BadInput("tool_choice: none of the allowed tools is in tools")
    return {"tools": chosen, "tool_choice": _word(str(allowed.get("mode", "auto")))}


def _name(value: dict[str, object]) -> object:
    """The name of a function, in `function` or, from some clients, at the top level."""
    function = value.get("function", value)
    return function.get("name") if is_object(function) else None


def _tool(value: object, where: str) -> ChatTool | None:
    tool = read_fields(value, where, "api.Tool", {"type": anything, "function": anything})
    if _is_hosted(tool):
        return None
    function = read_fields(
        tool.get("function", {}), f"{where}.function", "api.ToolFunction", _FUNCTION
    )
    if not function.get("name"):
        raise BadInput("cannot take a tool without function.name")
    return {"type": "function", "function": function}


def _parameters(value: object, where: str) -> dict[str, object]:
    if not is_object(value):
        raise misfit(value, where, "api.ToolFunctionParameters")
    return value


_FUNCTION: dict[str, Read[object]] = {
    "name": string,
    "description": string,
    "parameters": _parameters,
    "strict": boolean,
}

_tools = list_of(_tool, "[]api.Tool", MAX_TOOLS)
