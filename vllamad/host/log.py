"""The daemon's log: one event is one line on stderr, or one entry of the journal.

Built on stdlib logging, so that messages of libraries are logged too. Writing neither raises nor
waits: a reader that stops reading loses lines, and then gets their number. It knows no settings.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import select
import time
from collections.abc import Mapping
from typing import cast

from vllamad.host.log_events import LogEvent
from vllamad.host.systemd.journal import Journal, open_journal
from vllamad.protocol.control import IDENTIFIER

FIELD_LIMIT = 1024  # bytes of one value
LINE_LIMIT = 4096  # PIPE_BUF: a pipe takes that much whole, or says that it cannot

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
# Escapes of terminals, line separators, and characters that turn the direction of text around.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BARE = re.compile(r'[^\s"=\\]+')

Field = str | int | float | bool | None


def event(
    logger: logging.Logger,
    level: int,
    message: str,
    name: LogEvent | None = None,
    /,
    **fields: object,
) -> None:
    """Log a constant message with the event's stable name, if it has one, and variable fields.

    A field that is None is left out.
    """
    logger.log(level, "%s", message, extra=named(name, **fields), stacklevel=2)


def named(name: LogEvent | None, /, **fields: object) -> dict[str, object]:
    """The `extra` of a log record: the event's name and its fields."""
    return {"fields": {"event": name} | fields}


def configure(
    format: str = "text",
    level: str = "info",
    *,
    environ: Mapping[str, str] = os.environ,
    fd: int = 2,
) -> None:
    """Send our events from `level` on, and warnings of libraries, to `fd` as "text" or "json".

    Where the journal reads `fd`, text goes to it as fields; a line that cannot, and all JSON, is
    written with its priority in front, and no time: the journal has one.
    """
    journal = is_journal(environ, fd)
    handler: logging.Handler = LineHandler(fd, json_lines=format == "json", journal=journal)
    if journal and format == "text" and (native := open_journal()):
        handler = JournalHandler(native, handler)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()  # a reload configures again
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for ours in ("vllamad", "vllamactl"):
        logging.getLogger(ours).setLevel(level.upper())


class LineHandler(logging.Handler):
    """Writes each record as one line, straight to a descriptor."""

    def __init__(self, fd: int, *, json_lines: bool = False, journal: bool = False) -> None:
        super().__init__()
        self._fd = fd
        self._spell = json_line if json_lines else text_line
        self._journal = journal
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                lost = logging.makeLogRecord(
                    {"name": __name__, "levelno": logging.WARNING, "msg": "log lines lost",
                     "fields": {"lines": self._lost}}
                )  # fmt: skip
                if self._write(self._line(lost)):
                    self._lost = 0
            if not self._write(self._line(record)):
                self._lost += 1
        except Exception:  # noqa: BLE001  # a failure to log must not fail the caller
            self._lost += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        line = self._spell(record, with_time=not self._journal)
        prefix = f"<{_PRIORITIES.get(record.levelno, 2)}>" if self._journal else ""
        return f"{prefix}{line}".encode()[: LINE_LIMIT - 1] + b"\n"

    def _write(self, line: bytes) -> bool:
        """Write if that can be done without waiting. A tty may still take a part only: go on."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while line:
            ready = poll.poll(0)
            if not ready or not ready[0][1] & select.POLLOUT:
                return False
            line = line[os.write(self._fd, line) :]
        return True


class JournalHandler(logging.Handler):
    """Sends each record with its fields to the journal; if it refuses one, to `otherwise`."""

    def __init__(self, journal: Journal, otherwise: logging.Handler) -> None:
        super().__init__()
        self._journal = journal
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {name: _spelled(value) for name, value in _fields(record).items()}
            fields |= {
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": str(record.lineno),
                "CODE_FUNC": record.funcName or "",
            }
            priority = _PRIORITIES.get(record.levelno, 2)
            taken = self._journal.send(message_line(record), priority, IDENTIFIER, fields)
        except Exception:  # noqa: BLE001  # as in LineHandler
            taken = False
        if not taken:
            self._otherwise.emit(record)

    def close(self) -> None:
        self._journal.close()
        super().close()


def message_line(record: logging.LogRecord) -> str:
    """`worker ready event=worker.ready pid=123`, for a log that has time and level elsewhere."""
    words = [_clip(escape(record.getMessage()))]
    words += [f"{escape(name)}={_quoted(value)}" for name, value in _fields(record).items()]
    return " ".join(words)


def text_line(record: logging.LogRecord, *, with_time: bool = True) -> str:
    """`2026-11-23T05:54:00.123Z INFO worker ready model=smollm2:135m pid=123`."""
    words = [_timestamp(record.created)] if with_time else []
    return " ".join([*words, logging.getLevelName(record.levelno), message_line(record)])


def json_line(record: logging.LogRecord, *, with_time: bool = True) -> str:
    """One JSON object; no field replaces `time`, `level`, `logger` or `message`."""
    shown: dict[str, Field] = {"time": _timestamp(record.created)} if with_time else {}
    shown |= {
        "level": logging.getLevelName(record.levelno).lower(),
        "logger": record.name,
        "message": _clip(escape(record.getMessage())),
    }
    ours = len(shown)
    for name, value in _fields(record).items():
        shown.setdefault(escape(name), value)
    # Cutting the text would leave no JSON, so the last fields go.
    while len((line := _dump(shown)).encode()) > LINE_LIMIT - 4 and len(shown) > ours:
        shown.popitem()
    return line


def escape(text: str) -> str:
    """Make control characters visible: one event stays one line, and no terminal is controlled."""
    return _CONTROL.sub(_visible, text)


def _fields(record: logging.LogRecord) -> dict[str, Field]:
    given = cast("dict[str, object]", getattr(record, "fields", {}))
    fields = {name: _plain(value) for name, value in given.items() if value is not None}
    if record.exc_info:
        # The exception and its line stand at the end.
        trace = logging.Formatter().formatException(record.exc_info)
        fields["traceback"] = escape(trace)[-FIELD_LIMIT:]
    return fields


def _plain(value: object) -> Field:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    return _clip(escape(str(value)))


def _clip(text: str) -> str:
    if len(text) * 4 <= FIELD_LIMIT:
        return text
    encoded = text.encode()
    if len(encoded) <= FIELD_LIMIT:
        return text
    return encoded[: FIELD_LIMIT - 3].decode("utf-8", "ignore") + "..."


def _dump(shown: Mapping[str, Field]) -> str:
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _spelled(value: Field) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _quoted(value: Field) -> str:
    text = _spelled(value)
    if _BARE.fullmatch(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    known = {9: "\\t", 10: "\\n", 13: "\\r"}
    return known.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _timestamp(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{start}.{milliseconds % 1000:03}Z"


def is_journal(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Tell whether the journal reads `fd`.

    JOURNAL_STREAM names the device and inode of the stream; it may be inherited by mistake.
    """
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
