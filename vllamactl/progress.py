"""The progress of a long command: live lines, plain lines, or JSON events.

It must not know the command.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vllamactl.download_meter import DownloadMeter
from vllamactl.human import clean, clock, size
from vllamactl.render import STEP, Screen
from vllamad.protocol.control import Progress

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK = 0.1  # seconds between two frames
_ERASE_BELOW = "\r\x1b[J"


class Progression:
    """Shows the progress of a long command; leaving the block clears the live lines."""

    def __init__(
        self, screen: Screen, title: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._now = now
        self._began = now()
        self._latest = Progress(status=title)
        self._title = title
        self._meter = DownloadMeter()
        self._last_line = ""
        self._lock = threading.Lock()  # guards the meter: one thread counts, one draws
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
            self._print_line(self._latest)
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

    def report(self, progress: Progress) -> None:
        """Show one more step."""
        with self._lock:
            self._latest = progress
            self._meter.add(progress, self._now())
        if self._screen.json:
            self._screen.event(_event(progress, self.elapsed))
        elif self._drawer is None:
            self._print_line(progress)

    def _print_line(self, progress: Progress) -> None:
        """Print a plain line, only for a new status or another tenth."""
        line = f"{self._screen.mark(STEP, self._screen.err)} {_words(progress, self._title)}"
        if progress.total:
            line += f"  {progress.completed * 10 // progress.total * 10}% of {size(progress.total)}"
        if line != self._last_line:
            self._last_line = line
            self._screen.note(f"{line}  {clock(self.elapsed)}" if self.elapsed >= 0.1 else line)

    def _draw(self) -> None:
        """Redraw the lines in place until the command ends, then erase them."""
        err, frame, up = self._screen.err, 0, ""
        while not self._over.wait(_TICK):
            columns, rows = shutil.get_terminal_size()
            lines = self._lines(rows)
            lines[0] = f"{_FRAMES[frame % len(_FRAMES)]} {lines[0]}"
            text = "\r\n".join(line[: columns - 1] for line in lines)
            err.write(f"{up}{_ERASE_BELOW}{text}")
            err.flush()
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            frame += 1
        err.write(f"{up}{_ERASE_BELOW}")
        err.flush()

    def _lines(self, rows: int) -> list[str]:
        """Return the current status, and the progress of the files below it."""
        with self._lock:
            latest, bars = self._latest, self._meter.lines(self._now(), rows - 3)
        words = self._title if latest.total else _words(latest, self._title)
        return [f"{words}  {clock(self.elapsed)}", *bars]


def _words(progress: Progress, title: str) -> str:
    status = clean(progress.status)
    if not (title and status):
        return title or status
    return title if status == title else f"{title}: {status}"


def _event(progress: Progress, elapsed: float) -> dict[str, object]:
    event: dict[str, object] = {"event": "progress", "status": progress.status}
    if progress.digest:
        event |= {"digest": progress.digest}
    if progress.total:
        event |= {"completed": progress.completed, "total": progress.total}
    return event | {"elapsed": round(progress.elapsed or elapsed, 3)}
