"""Writes a reply as it streams: wrapped at whole words, thinking set apart.

It must not know the source of the pieces.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TextIO

from vllamactl.chat.conversation import ReplyMessage, ResponsePiece
from vllamactl.human import clean_lines
from vllamactl.render import Screen

_MARGIN = 5  # columns left free at the right
_NARROWEST = 10  # columns; narrower terminals are not wrapped
_DIM, _PLAIN = "\x1b[90m", "\x1b[0m"


class Answer:
    """One streaming reply on the screen; `message` is the part received so far."""

    def __init__(self, screen: Screen, *, wrap: bool, hide_thinking: bool) -> None:
        terminal = screen.out.isatty()
        columns = shutil.get_terminal_size().columns if terminal and wrap else 0
        self._writer = Writer(screen.out, columns, careful=terminal)
        self._screen = screen
        self._hide = hide_thinking
        self._thinking = False
        self._text: list[str] = []
        self._thought: list[str] = []
        self.last = ResponsePiece()

    @property
    def message(self) -> ReplyMessage:
        return ReplyMessage(
            role="assistant", content="".join(self._text), thinking="".join(self._thought)
        )

    def add(self, piece: ResponsePiece) -> None:
        if piece.thought:
            self._think(piece.thought)
        if piece.text:
            self._end_thinking()
            self._text.append(piece.text)
            self._writer.write(piece.text)
        if piece.done:
            self.last = piece

    def end(self) -> None:
        """Leave the cursor on an empty line below the reply."""
        self._end_thinking()
        self._writer.flush()
        if self._text or (self._thought and not self._hide):
            self._screen.out.write("\n\n")
        self._screen.out.flush()

    def _think(self, text: str) -> None:
        self._thought.append(text)
        if self._hide:
            return
        if not self._thinking:
            self._thinking = True
            self._screen.out.write(f"{self._dim(_DIM)}Thinking...\n")
        self._writer.write(text)

    def _end_thinking(self) -> None:
        if not self._thinking:
            return
        self._thinking = False
        self._writer.flush()
        new_line = "" if "".join(self._thought).endswith("\n") else "\n"
        self._screen.out.write(f"{new_line}...done thinking.{self._dim(_PLAIN)}\n\n")
        self._writer.column = 0

    def _dim(self, code: str) -> str:
        return code if self._screen.has_colours(self._screen.out) else ""


class Writer:
    """Writes a text that arrives in pieces, wrapped between words if `columns` is given.

    A word is buffered until it is complete. With `careful`, for a terminal, control characters are
    replaced.
    """

    def __init__(self, out: TextIO, columns: int = 0, *, careful: bool = False) -> None:
        self._out = out
        self._width = columns - _MARGIN if columns >= _NARROWEST else 0
        self._careful = careful
        self._word = ""
        self.column = 0

    def write(self, text: str) -> None:
        if self._careful:
            text = clean_lines(text)
        if not self._width:
            self._out.write(text)
        else:
            for character in text:
                self._add(character)
        self._out.flush()

    def flush(self) -> None:
        """Write the buffered word."""
        self._put(self._word)
        self._word = ""

    def _add(self, character: str) -> None:
        if character in " \n" or _width_of(character) > 1:
            self.flush()
            self._put(character)
        else:
            self._word += character

    def _put(self, word: str) -> None:
        if word == "\n":
            self.column = 0
        else:
            width = sum(map(_width_of, word))
            if self.column and self.column + width > self._width:
                self._out.write("\n")
                self.column = 0
                if word == " ":
                    return
            self.column += width
        self._out.write(word)


def write_lines(out: TextIO, lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=out)


def _width_of(character: str) -> int:
    if character.isascii():
        return 1
    from prompt_toolkit.utils import get_cwidth  # slow, and English never needs it

    return get_cwidth(character)
