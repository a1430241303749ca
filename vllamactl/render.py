"""The output: tables for people, JSON or names for scripts, errors in one format.

It must not know the source of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

import msgspec

from vllamactl.human import clean
from vllamad.errors import VllamadError

STEP, BULLET, DONE, FAILED = "→", "•", "✓", "✗"
_COLOURS = {STEP: "1;36", BULLET: "2", DONE: "1;32", FAILED: "1;31"}
_GAP = "    "


class Screen:
    """Standard output and error, with the caller's choice of JSON, text or names only."""

    def __init__(
        self, *, json: bool, quiet: bool, out: TextIO, err: TextIO, environ: Mapping[str, str]
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.out = out
        self.err = err
        self._plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"

    def answer(self, data: object, text: str, brief: Sequence[str] = ()) -> None:
        """Print the result of a command: JSON with --json, `brief` with --quiet, else `text`."""
        if self.json:
            print(msgspec.json.format(msgspec.json.encode(data)).decode(), file=self.out)
        elif not self.quiet:
            print(text, file=self.out)
        else:
            for line in brief:
                print(line, file=self.out)

    def event(self, data: object) -> None:
        """Print one line of a JSON stream, flushed."""
        print(msgspec.json.encode(data).decode(), file=self.out, flush=True)

    def note(self, text: str) -> None:
        """Print a note beside the result, for people only."""
        if not (self.json or self.quiet):
            print(text, file=self.err)

    def error(self, error: VllamadError) -> None:
        """Print an error: the message, then its details and the hint."""
        if self.json:
            body = {"kind": error.kind, "message": error.message, "hint": error.hint}
            self.event({"error": body})
            return
        message, *details = error.message.splitlines() or ["unknown error"]
        print(f"{self.mark(FAILED, self.err)} {clean(message)}", file=self.err)
        for line in (*details, *error.hint.splitlines()):
            print(f"  {clean(line)}", file=self.err)

    def mark(self, symbol: str, stream: TextIO | None = None) -> str:
        """Return the symbol, coloured if the stream is a terminal with colours."""
        if not self.has_colours(stream or self.out):
            return symbol
        return f"\x1b[{_COLOURS[symbol]}m{symbol}\x1b[0m"

    def has_colours(self, stream: TextIO) -> bool:
        """True if the stream is a terminal and colours are not disabled."""
        return not self._plain and stream.isatty()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format columns as wide as their widest cell, four spaces apart, no borders."""
    lines = [list(heads), *([clean(cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def blocks(parts: Mapping[str, Sequence[tuple[str, ...]]]) -> str:
    """Format titled, indented blocks of columns; a part without lines is left out."""
    return "\n\n".join(f"  {title}\n{_block(rows)}" for title, rows in parts.items() if rows)


def _block(rows: Sequence[tuple[str, ...]]) -> str:
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{_GAP}{_GAP.join((row[0].ljust(width), *row[1:]))}".rstrip()
        for row in ([clean(cell) for cell in row] for row in rows)
    )
