"""What did the engine send? Bytes into the data of server-sent events, whatever the cuts."""

from __future__ import annotations

from vllamad.errors import EngineRefused

MAX_EVENT = 16 << 20  # bytes


class EventReader:
    """Collects one stream's bytes and gives out each event's data once it is whole."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was just received; return the data of every event it completed.

        Comments, other fields and events without data give nothing. Raises EngineRefused for
        an event that is too large.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if b"\n" not in data and b"\r" not in data:  # nothing ends here: do not join yet
                self._refuse_excess()
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        if b"\r" in data:
            return self._feed_odd_line_ends(data)
        whole, blank, rest = data.rpartition(b"\n\n")
        self._hold(rest)
        return _events(whole) if blank else []

    def _feed_odd_line_ends(self, data: bytes) -> list[bytes]:
        """CR LF, or CR alone, ends a line too; a CR at the very end may be half of one."""
        half = data.endswith(b"\r")
        lines = data[: len(data) - half].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole, blank, rest = lines.rpartition(b"\n\n")
        self._hold(rest + b"\r" * half)
        return _events(whole) if blank else []

    def _hold(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        self._refuse_excess()

    def _refuse_excess(self) -> None:
        if self._size > MAX_EVENT:
            raise EngineRefused(
                f"cannot read an event of more than {MAX_EVENT} bytes from the engine", status=502
            )


def _events(text: bytes) -> list[bytes]:
    payloads: list[bytes] = []
    for event in text.split(b"\n\n"):
        if event.startswith(b"data: ") and b"\n" not in event:
            payloads.append(event[6:])
        elif (payload := _data(event)) is not None:
            payloads.append(payload)
    return payloads


def _data(event: bytes) -> bytes | None:
    """Join the data lines of one event; other fields and comments do not matter to us."""
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
