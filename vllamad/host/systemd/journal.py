"""Speaks the journal's native protocol: an event is one datagram of fields, a worker's line too.

systemd.io/JOURNAL_NATIVE_PROTOCOL. Sending neither waits nor raises; a failed send returns False.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from vllamad.protocol.control import ENGINE_IDENTIFIER

SOCKET = Path("/run/systemd/journal/socket")
LINES_PER_SECOND = 200  # of one worker's output; its file has them all

_NO_NAME = re.compile(r"[^A-Z0-9_]")
# "(EngineCore pid=7) ERROR 11-23 04:00:05 [core.py:402] ..."
_LEVEL = re.compile(r"^(?:\S*?\(\S+ pid=\d+\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d ")
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Journal:
    """The connection to the journal of this machine."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Raises OSError where there is no journal."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def send(self, message: str, priority: int, identifier: str, fields: Mapping[str, str]) -> bool:
        """Send one entry; False: it was not taken. Names of `fields` are made the journal's."""
        entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": identifier}
        for name, value in fields.items():
            entry.setdefault(field_name(name), value)
        try:
            self._socket.send(encode(entry))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


def encode(fields: Mapping[str, str]) -> bytes:
    """Spell an entry; a value of several lines is preceded by its length."""
    return b"".join(_field(name, value.encode()) for name, value in fields.items())


def field_name(name: str) -> str:
    """A name the journal takes: capitals, digits and underscores, a letter first, 64 at most."""
    plain = _NO_NAME.sub("_", name.upper()).lstrip("_0123456789")[:64]
    return plain or "FIELD"


def engine_priority(line: str) -> int:
    """The priority of a line of vLLM's output by the level it names; else it is informational."""
    found = _LEVEL.match(line)
    return _PRIORITIES[found[1]] if found else 6


class EngineLines:
    """Sends the output of one worker to the journal, each line with its model."""

    def __init__(self, journal: Journal, model: str) -> None:
        self._journal = journal
        self._fields = {"MODEL": model}
        self._second = 0
        self._lines = 0

    def send(self, line: str, worker_pid: int) -> None:
        """Send one line. Of more than 200 in a second only the first are sent, and a notice."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND + 1:
            return
        fields = self._fields | ({"WORKER_PID": str(worker_pid)} if worker_pid else {})
        priority = engine_priority(line)
        if self._lines > LINES_PER_SECOND:
            line, priority = "lines are missing here, `vllamactl logs` has them", 5
        self._journal.send(line, priority, ENGINE_IDENTIFIER, fields)


def open_journal(path: Path = SOCKET) -> Journal | None:
    """The journal, or None if there is none or access is denied."""
    try:
        return Journal(path)
    except OSError:
        return None


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
