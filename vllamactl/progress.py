"""How a long command shows that it goes on: a live line, plain lines, or JSON events.

Must not know what is being waited for.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vllamactl.human import clean, clock, size
from vllamactl.render import STEP, Screen
from vllamad.wire.control import Progress

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK = 0.1  # seconds between two frames
_BAR = 30
_ERASE = "\r\x1b[2K"


class Progression:
    """What a long command reports to while it runs; leaving the block cleans up the terminal."""

    def __init__(
        self, screen: Screen, title: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._now = now
        self._began = now()
        self._latest = Progress(status=title)
        self._title = title
        self._said = ""
        self._over = threading.Event()
        self._drawer: threading.Thread | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return self._now() - self._began

    def __enter__(self) -> Self:
        screen = self._screen
        if not (screen.json or screen.quiet) and screen.err.isatty():
            self._drawer = threading.Thread(target=self._draw, daemon=True)
            self._drawer.start()
        else:
            self._say(self._latest)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._drawer is not None:
            self._over.set()
            self._drawer.join()
            self._screen.err.write(_ERASE)
            self._screen.err.flush()

    def report(self, progress: Progress) -> None:
        """Show one more step."""
        self._latest = progress
        if self._screen.json:
            self._screen.event(_event(progress, self.elapsed))
        elif self._drawer is None:
            self._say(progress)

    def _say(self, progress: Progress) -> None:
        """A plain line, but only when there is news: a new status or another tenth."""
        line = f"{self._screen.mark(STEP, self._screen.err)} {_words(progress, self._title)}"
        if progress.total:
            line += f"  {progress.completed * 10 // progress.total * 10}% of {size(progress.total)}"
        if line != self._said:
            self._said = line
            self._screen.note(f"{line}  {clock(self.elapsed)}" if self.elapsed >= 0.1 else line)

    def _draw(self) -> None:
        frame = 0
        while not self._over.wait(_TICK):
            width = shutil.get_terminal_size().columns
            line = live_line(self._latest, self._title, self.elapsed)
            self._screen.err.write(f"{_ERASE}{_FRAMES[frame % len(_FRAMES)]} {line[: width - 3]}")
            self._screen.err.flush()
            frame += 1


def live_line(progress: Progress, title: str, elapsed: float) -> str:
    """The line beside the spinner: a bar where the total is known, and the time gone by."""
    words = _words(progress, title)
    if not progress.total:
        return f"{words}  {clock(elapsed)}"
    share = min(progress.completed / progress.total, 1.0)
    full = int(share * _BAR)
    bar = "━" * full + ("╺" if full < _BAR else "") + " " * (_BAR - full - 1)
    rate = progress.completed / elapsed if elapsed > 0 else 0.0
    left = f"  {clock((progress.total - progress.completed) / rate)} left" if rate else ""
    counts = f"{size(progress.completed)}/{size(progress.total)}"
    return f"{words}  {bar} {share:4.0%}  {counts}  {size(int(rate))}/s{left}"


def _words(progress: Progress, title: str) -> str:
    status = clean(progress.status)
    return title if not status or status == title else f"{title}: {status}"


def _event(progress: Progress, elapsed: float) -> dict[str, object]:
    event: dict[str, object] = {"event": "progress", "status": progress.status}
    if progress.total:
        event |= {"completed": progress.completed, "total": progress.total}
    return event | {"elapsed": round(progress.elapsed or elapsed, 3)}
