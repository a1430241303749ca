"""The reader of server-sent events: bytes of any chunking become the data of events."""

from __future__ import annotations

from vllamad.errors import EngineRefused

MAX_EVENT = 16 << 20  # bytes


class EventReader:
    """Collects the bytes of one stream and returns the data of each event once it is complete."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; return the data of every event that they complete.

        Comments, other fields and events without data are skipped. Raises EngineRefused for an
        event that is too large.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if b"\n" not in data and b"\r" not in data:  # no line ends here: do not join yet
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
        """Handle CR LF and CR as line ends; a CR at the very end may be half of a CR LF."""
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
    """Join the data lines of one event; other fields and comments are skipped."""
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
