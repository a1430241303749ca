"""Renders a chat template as vLLM does: with transformers' environment and vLLM's messages.

A template is untrusted code and nothing here limits it: use it in a process of its own.
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
    """Renders one template. Raises jinja2's errors for an invalid one."""

    def __init__(self, template: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._template = _environment().from_string(template)

    def render(
        self, messages: Chat, *, tools: object = None, parts: bool = False, **more: object
    ) -> str:
        """Render the prompt. Raises any error of the template.

        `parts` passes contents as lists of parts, as vLLM does for templates that iterate over
        them.
        """
        return self._template.render(
            messages=[_as_vllm(message, parts) for message in messages],
            tools=tools,
            documents=None,
            **{"add_generation_prompt": True} | self._tokens | more,
        )


class _Generation(jinja2.ext.Extension):
    """The tag `generation`, which marks the text a model is trained on, and renders its body."""

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


def _as_vllm(message: Mapping[str, Any], parts: bool) -> dict[str, Any]:
    content = message.get("content")
    as_parts: list[Any] = (
        [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    )
    rendered = dict(message)
    rendered["content"] = as_parts
    if not parts or message["role"] == "tool":
        texts = [part["text"] for part in as_parts if part.get("text")]
        rendered["content"] = "\n".join(texts)
    if calls := message.get("tool_calls"):
        rendered["tool_calls"] = [_with_arguments(call) for call in calls]
    return rendered


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object; vLLM replaces invalid JSON by an empty one."""
    function = dict(call["function"])
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = cast("object", json.loads(arguments))
        except ValueError:
            arguments = {}
    function["arguments"] = arguments if isinstance(arguments, dict) else {}
    return call | {"function": function}
