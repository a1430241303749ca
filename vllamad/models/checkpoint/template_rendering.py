"""A chat template rendered as vLLM renders it: transformers' environment and vLLM's messages.

For a process of its own: a template is a stranger's program, and nothing here bounds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Chat = Sequence[Mapping[str, Any]]


class Renderer:
    """One template. Raises what jinja2 raises for what is no template."""

    def __init__(self, template: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._template = _environment().from_string(template)

    def render(
        self, messages: Chat, *, tools: object = None, parts: bool = False, **more: object
    ) -> str:
        """The prompt. Raises whatever the template raises.

        `parts` spells contents as lists of parts, as vLLM does for templates that walk them.
        """
        return self._template.render(
            messages=[_spelled(message, parts) for message in messages],
            tools=tools,
            documents=None,
            **{"add_generation_prompt": True} | self._tokens | more,
        )


class _Generation(jinja2.ext.Extension):
    """The tag `generation`, which marks what a model is trained on and prints its body."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _now}
    cast("dict[str, Any]", environment.globals).update(functions)
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _spelled(message: Mapping[str, Any], parts: bool) -> dict[str, Any]:
    content = message.get("content")
    as_parts: list[Any] = (
        [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    )
    spelled = dict(message)
    spelled["content"] = as_parts
    if not parts or message["role"] == "tool":
        texts = [part["text"] for part in as_parts if part.get("text")]
        spelled["content"] = "\n".join(texts)
    if calls := message.get("tool_calls"):
        spelled["tool_calls"] = [_with_arguments(call) for call in calls]
    return spelled


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments as an object, in which vLLM puts what is no JSON object."""
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = cast("object", json.loads(arguments))
        except ValueError:
            arguments = {}
    function["arguments"] = arguments if isinstance(arguments, dict) else {}
    return call | {"function": function}
