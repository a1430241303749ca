"""Reads lines from a terminal, with history and editing, and messages of several lines.

The only module that uses prompt_toolkit, which is slow to import: import this module late.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.vt100 import Vt100_Output

from vllamad.config.ollama_variables import truth
from vllamad.config.paths import home_of, xdg

QUOTE = '"""'
_QUOTED_COMMANDS = ("", "/set system ")  # prefixes of a text in quotes
_PLACEHOLDER = "Send a message (/? for help)"


class LineSource(Protocol):
    """A source of lines. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C."""

    def read(self, prompt: str) -> str: ...


class Typed(NamedTuple):
    """One message or command; a quoted text is never a command."""

    text: str
    quoted: bool


def read_message(lines: LineSource) -> Typed:
    """Read a line, or the lines between triple quotes."""
    first = lines.read(">>> ")
    before, quote, text = first.lstrip().partition(QUOTE)
    if not quote or before not in _QUOTED_COMMANDS:
        return Typed(first, quoted=False)
    while not text.rstrip().endswith(QUOTE):
        text += "\n" + lines.read("... ")
    return Typed(before + text.rstrip().removesuffix(QUOTE), quoted=not before)


class Terminal:
    """Lines typed at a terminal, with a history that later sessions share."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._history = _SwitchableHistory(_history(environ))
        self._history.enabled = not truth(environ.get("OLLAMA_NOHISTORY", ""))
        self._session: PromptSession[str] = PromptSession(
            history=self._history,
            key_bindings=_keys(),
            input=create_input(),
            # The cursor position is not needed, and some terminals do not report it.
            output=Vt100_Output(sys.stdout, _size, term=environ.get("TERM"), enable_cpr=False),
        )

    def read(self, prompt: str) -> str:
        placeholder = _PLACEHOLDER if prompt.startswith(">") else ""
        return self._session.prompt(
            prompt, placeholder=FormattedText([("ansibrightblack", placeholder)])
        )

    @property
    def discarded(self) -> str:
        """The text of the line that Ctrl-C discarded."""
        return self._session.default_buffer.text

    def keep_history(self, enabled: bool) -> None:
        self._history.enabled = enabled


class _SwitchableHistory(History):
    """A history whose recording can be switched off."""

    def __init__(self, inner: History) -> None:
        super().__init__()
        self._inner = inner
        self.enabled = True

    def load_history_strings(self) -> Iterable[str]:
        return self._inner.load_history_strings()

    def append_string(self, string: str) -> None:
        if self.enabled:
            super().append_string(string)

    def store_string(self, string: str) -> None:
        self._inner.store_string(string)


def _history(environ: Mapping[str, str]) -> History:
    """Return the history in the user's state folder; in memory if that cannot be written."""
    home = home_of(environ, os.geteuid())
    folder = (xdg(environ, "XDG_STATE_HOME") or home / ".local" / "state") / "vllamad"
    path = folder / "chat_history"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def _size() -> Size:
    columns, rows = shutil.get_terminal_size()
    return Size(rows=rows, columns=columns)


def _keys() -> KeyBindings:
    keys = KeyBindings()
    add: Callable[[Callable[[KeyPressEvent], object]], object] = keys.add("c-g")

    def edit(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    add(edit)
    return keys
