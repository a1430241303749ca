"""The progress of a download: a row for each file, the sum, the rate, and the time left.

Pure; the current time is an argument.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from vllamactl.human import clean, clock, size
from vllamad.protocol.control import Progress

_WINDOW = 10.0  # seconds of the moving rate
_BAR = 30


class _File(NamedTuple):
    label: str
    completed: int
    total: int


class DownloadMeter:
    """Sums the steps of a pull; its totals never decrease."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, step: Progress, now: float) -> None:
        if not step.total:
            return
        key = step.digest or step.status
        before = self._files.get(key)
        completed = max(step.completed, before.completed if before else 0)
        # Bytes that were present at the first step do not count for the rate.
        present = 0 if before else completed
        self._files[key] = _File(clean(step.status), min(completed, step.total), step.total)
        if not self._samples or present:
            self._samples = deque([(now, self.completed)])
        self._samples.append((now, self.completed))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW:
            self._samples.popleft()

    @property
    def completed(self) -> int:
        return sum(file.completed for file in self._files.values())

    @property
    def total(self) -> int:
        return sum(file.total for file in self._files.values())

    def rate(self, now: float) -> float:
        """Return bytes per second, over the last ten seconds."""
        if not self._samples:
            return 0.0
        began, before = self._samples[0]
        return (self.completed - before) / (now - began) if now > began else 0.0

    def lines(self, now: float, rows: int) -> list[str]:
        """Return a line for each file in progress, at most `rows` of them, and one for the sum."""
        if len(self._files) == 1:
            (file,) = self._files.values()
            return [_row(file, 0) + self._pace(now)]
        width = max((len(file.label) for file in self._files.values()), default=0)
        coming = [file for file in self._files.values() if 0 < file.completed < file.total]
        shown = [_row(file, width) for file in coming[: max(rows, 0)]]
        if not self._files:
            return shown
        whole = _File(f"{len(self._files)} files", self.completed, self.total)
        return [*shown, _row(whole, width) + self._pace(now)]

    def _pace(self, now: float) -> str:
        rate = self.rate(now)
        if rate <= 0 or self.completed >= self.total:
            return ""
        return f"  {size(int(rate))}/s  {clock((self.total - self.completed) / rate)} left"


def _row(file: _File, width: int) -> str:
    share = min(file.completed / file.total, 1.0)
    full = int(share * _BAR)
    bar = "━" * full + ("╺" if full < _BAR else "") + " " * (_BAR - full - 1)
    counts = f"{size(file.completed)}/{size(file.total)}"
    return f"{file.label:<{width}}  {bar} {share:4.0%}  {counts}"
