"""Reads a Modelfile by Ollama's grammar; knows no files and no models.

# comment
FROM smollm2:135m                 a model or a path; the caller decides which
PARAMETER temperature 0.2         values are words, "quoted" or triple-quoted over many lines
SYSTEM You are terse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from vllamad.core.overlay import Turn
from vllamad.errors import BadInput
from vllamad.translate.ollama.options import option_type

COMMANDS: Final = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser",
    "parameter", "message", "requires",
)  # fmt: skip
ROLES: Final = ("system", "user", "assistant")
DEPRECATED: Final = frozenset({
    "penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock",
    "mirostat", "mirostat_tau", "mirostat_eta",
})  # fmt: skip

_TRIPLE = '"""'
_WORD = re.compile(r"[A-Za-z0-9_]*")
_SPACE = re.compile(r"[ \t]*")
_VERSION = re.compile(r"v?\d+(\.\d+){0,2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class Modelfile(msgspec.Struct, frozen=True, kw_only=True):
    """A Modelfile as `/api/create` takes it; `deprecated` names parameters that are left out."""

    sources: tuple[str, ...]  # the values of FROM, at least one
    adapters: tuple[str, ...] = ()
    draft: str = ""
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: dict[str, object] = {}
    messages: tuple[Turn, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    deprecated: tuple[str, ...] = ()


class Statement(NamedTuple):
    """One statement; `name` is that of a parameter or the role of a message, else empty."""

    line: int  # its first, counted from 1
    command: str
    name: str
    value: str


def parse_modelfile(text: str) -> Modelfile:
    """Read a Modelfile. Raises BadInput that names the line."""
    statements = list(_statements(text.removeprefix("\ufeff").replace("\r\n", "\n")))
    if not any(statement.command == "from" for statement in statements):
        raise BadInput("no FROM line", hint="begin with FROM and the model to start from")

    def values(command: str) -> tuple[str, ...]:
        return tuple(statement.value for statement in statements if statement.command == command)

    def last(command: str) -> str:
        return values(command)[-1] if values(command) else ""

    settings = [statement for statement in statements if statement.command == "parameter"]
    return Modelfile(
        sources=values("from"),
        adapters=values("adapter"),
        draft=last("draft"),
        template=last("template"),
        system=last("system"),
        licenses=values("license"),
        parameters=_parameters([setting for setting in settings if setting.name not in DEPRECATED]),
        messages=tuple(
            Turn(role=statement.name, content=statement.value)
            for statement in statements
            if statement.command == "message"
        ),
        renderer=last("renderer"),
        parser=last("parser"),
        requires=_requires(statements),
        deprecated=tuple(setting.name for setting in settings if setting.name in DEPRECATED),
    )


def typed_parameter(name: str, text: str) -> object:
    """Read the value of an option from text. Raises BadInput.

    For an option whose type is an array, the text is one element.
    """
    kind = option_type(name)
    if kind is None:
        raise BadInput(f"unknown parameter '{name}'")
    try:
        return _READ[kind](text)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"cannot set {name} to {text!r}: it is no {_IN_WORDS[kind]}") from error


def _statements(text: str) -> Iterator[Statement]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        else:
            line = text.count("\n", 0, at) + 1
            cursor = _Cursor(text, at, line)
            yield cursor.statement()
            at = cursor.at


class _Cursor:
    """A position in the text, at the start of a statement on `line`."""

    def __init__(self, text: str, at: int, line: int) -> None:
        self._text = text
        self._line = line
        self.at = at

    def statement(self) -> Statement:
        command = self._word().lower()
        if command not in COMMANDS:
            names = ", ".join(f'"{name}"' for name in COMMANDS)
            raise self._wrong(f"command must be one of {names}")
        name = ""
        if command == "parameter":
            name = self._word()
        elif command == "message":
            name = self._word()
            if name not in ROLES:
                raise self._wrong('message role must be one of "system", "user", or "assistant"')
        value = self._value(command)
        if not value and command in ("from", "adapter", "draft", "parameter"):
            raise self._wrong(f"{command.upper()} needs a value")
        return Statement(self._line, command, name, value)

    def _word(self) -> str:
        word = _WORD.match(self._text, self.at)
        assert word is not None  # the pattern matches the empty string too
        after = self._text[word.end() : word.end() + 1]
        if after and not after.isspace():
            raise self._wrong(f"cannot read {self._text[self.at : word.end() + 1]!r}")
        space = _SPACE.match(self._text, word.end())
        assert space is not None
        self.at = space.end()
        return word[0]

    def _value(self, command: str) -> str:
        """Read to the end of the line, or of the line with the closing quote."""
        end = _line_end(self._text, self.at)
        while (value := _unquoted(self._text[self.at : end].strip())) is None:
            if end == len(self._text):
                raise self._wrong(f"{command.upper()} has a quote that is never closed")
            end = _line_end(self._text, end + 1)
        self.at = end
        return value

    def _wrong(self, what: str) -> BadInput:
        return BadInput(f"line {self._line}: {what}")


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _unquoted(text: str) -> str | None:
    """Return the text without its quotes; None while a quote is open."""
    for quote in (_TRIPLE, '"'):
        if text.startswith(quote):
            closed = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if closed else None
    return text


def _parameters(statements: list[Statement]) -> dict[str, object]:
    """Collect parameters: the last of a name counts, and lists collect all."""
    single: dict[str, object] = {}
    lists: dict[str, list[object]] = {}
    for statement in statements:
        try:
            value = typed_parameter(statement.name, statement.value)
        except BadInput as error:
            raise BadInput(f"line {statement.line}: {error.message}") from error
        if option_type(statement.name) == "array":
            lists.setdefault(statement.name, []).append(value)
        else:
            single[statement.name] = value
    return single | lists


def _requires(statements: list[Statement]) -> str:
    requirements = [statement for statement in statements if statement.command == "requires"]
    for statement in requirements:
        if not _VERSION.fullmatch(statement.value):
            raise BadInput(f"line {statement.line}: requires must be a version, as 0.14.0")
    return requirements[-1].value.removeprefix("v") if requirements else ""


def _boolean(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise ValueError(text)
    return text in _TRUE


_READ: Final[dict[str, Callable[[str], object]]] = {
    "float32": float,
    "integer": lambda text: int(float(text)) if "." in text else int(text),
    "boolean": _boolean,
    "array": str,
}
_IN_WORDS: Final = {"float32": "number", "integer": "whole number", "boolean": "true or false"}
