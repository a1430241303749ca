"""The line of each key in a TOML text.

tomlkit keeps no positions, so the text is read a second time, for its keys only. It must not judge:
the text has been parsed before, and what is wrong with it has been said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import tomlkit
from tomlkit.exceptions import TOMLKitError

KeyPath = tuple[str, ...]

_TOKEN = re.compile(
    r"""
      (?P<newline> \n )
    | (?P<blank>   [ \t\r]+ | \#[^\n]* )
    | (?P<string>  \"{3} (?:\\.|[^\\])*? \"{3,5} | '{3} .*? '{3,5}
                 | " (?:\\.|[^"\\\n])* " | ' [^'\n]* ' )
    | (?P<sign>    [\[\]{},.=] )
    | (?P<bare>    [^\s\[\]{},.=#"']+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def first_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) on which each key, and each table on the way to it, is first named."""
    lines: dict[KeyPath, int] = {}
    for path, line in key_lines(text):
        for depth in range(1, len(path) + 1):
            lines.setdefault(path[:depth], line)
    return lines


def first_repeated(text: str) -> int | None:
    """The line that names a key a second time, for parse errors that come without a position."""
    seen: set[KeyPath] = set()
    for path, line in key_lines(text):
        if path in seen:
            return line
        seen.add(path)
    return None


def split_key(text: str) -> KeyPath:
    """Read a dotted key such as `model."qwen2.5:7b".keep_alive`. Raises ValueError."""
    line = f"{text} = 0"
    try:
        tomlkit.parse(line)
    except TOMLKitError as error:
        raise ValueError(f"not a dotted key: {text}") from error
    paths = [path for path, _ in key_lines(line)]
    if len(paths) != 1 or "\n" in text:
        raise ValueError(f"not a dotted key: {text}")
    return paths[0]


def key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Every key with its whole path and line, in the order of the text, table headers included."""
    reader = _Reader()
    line = 1
    for token in _TOKEN.finditer(text):
        word = token.group()
        if token.lastgroup not in ("newline", "blank"):
            path = reader.take(word, is_sign=token.lastgroup == "sign")
            if path:
                yield path, line
        elif word == "\n":
            reader.end_line()
        line += word.count("\n")


class _Reader:
    """The position in the grammar: in a table's header, in a key, or in a value."""

    def __init__(self) -> None:
        self.table: KeyPath = ()
        self.key: KeyPath = ()
        self.owner: KeyPath = ()  # the key whose value is being read
        self.open: list[KeyPath | None] = []  # inline tables by their key, None for an array
        self.place = "key"

    def end_line(self) -> None:
        if not self.open:
            self.place, self.key = "key", ()

    def take(self, word: str, *, is_sign: bool) -> KeyPath | None:
        """Go one token on; the path, when it completes a key or a header."""
        match self.place:
            case "header":
                return self._header(word, is_sign)
            case "key":
                return self._key(word, is_sign)
            case _:
                self._value(word, is_sign)
                return None

    def _header(self, word: str, is_sign: bool) -> KeyPath | None:
        if not is_sign:
            self.key = (*self.key, _plain(word))
        elif word == "]":
            self.table, self.place = self.key, "value"
            return self.table
        return None

    def _key(self, word: str, is_sign: bool) -> KeyPath | None:
        if not is_sign:
            self.key = (*self.key, _plain(word))
        elif word == "=":
            base = self.open[-1] if self.open else self.table
            self.owner, self.place = (*(base or ()), *self.key), "value"
            return self.owner
        elif word == "[":
            self.place = "header"
        elif word == "}":
            self._value(word, is_sign)
        return None

    def _value(self, word: str, is_sign: bool) -> None:
        if not is_sign:
            return
        if word == "[":
            self.open.append(None)
        elif word == "{":
            self.open.append(self.owner)
            self.place, self.key = "key", ()
        elif word in "]}" and self.open:
            self.owner = self.open.pop() or self.owner
            self.place = "value"
        elif word == "," and self.open and self.open[-1] is not None:
            self.place, self.key = "key", ()


def _plain(word: str) -> str:
    """A part of a key without its quotes."""
    if "\\" in word and word.startswith('"'):
        try:
            return next(iter(tomlkit.parse(f"{word} = 0")))
        except TOMLKitError:
            pass  # only in a text that did not parse, where any name will do
    return word[1:-1] if word[0] in "\"'" else word
