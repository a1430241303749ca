"""Reads the output of one engine process: its load phase, why it died; feeds the journal."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import trio

from vllamad.config.settings import LogSettings
from vllamad.engine.reasons import (
    child_signal,
    is_fatal_start_line,
    last_meaningful_line,
    read_load_phase,
)
from vllamad.host.log import escape
from vllamad.host.log_files import LogPosition, WorkerLog, worker_log
from vllamad.host.systemd.journal import EngineLines


class EngineOutput:
    """The meaning of the lines of one engine process."""

    def __init__(self, journal: EngineLines | None) -> None:
        self.fatal = trio.Event()
        self.load_phase = "starting"
        self.file: WorkerLog | None = None
        self.pid = 0
        self._journal = journal

    def on_line(self, line: str) -> None:
        if self._journal:
            self._journal.send(escape(line), self.pid)
        self.load_phase = read_load_phase(line) or self.load_phase
        if is_fatal_start_line(line):
            self.fatal.set()

    def reason(self) -> str:
        """The last meaningful line so far; empty if there is none."""
        return last_meaningful_line(self._tail())

    def child_signal(self) -> int:
        """The signal that ended a process below the leader, if the output says so; else 0."""
        return child_signal(self._tail())

    def _tail(self) -> str:
        if self.file is None:
            return ""
        self.file.catch_up()
        return self.file.tail()


@contextmanager
def worker_output(
    path: Path, settings: LogSettings, journal: EngineLines | None, resume: LogPosition | None
) -> Generator[tuple[WorkerLog, EngineOutput]]:
    """Open the log of one engine process, or resume it, and read its lines."""
    output = EngineOutput(journal)
    limit, keep = settings.max_bytes, settings.keep
    with worker_log(
        path, max_bytes=limit, keep=keep, on_line=output.on_line, resume=resume
    ) as file:
        output.file = file
        yield file, output
