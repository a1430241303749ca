"""Readers of HTTP/1.1 bodies: chunked, counted, or up to the end of the stream.

It must not know where the bytes come from. Several times cheaper than h11 on a stream of small
chunks, because everything one read brought is decoded at once.
"""

from __future__ import annotations

from typing import Protocol

_HEX = b"0123456789abcdefABCDEF"
_LINE_LIMIT = 1024  # a chunk size with its extensions, or one trailer
_TRAILERS_LIMIT = 16 * 1024


class BodyReader(Protocol):
    """Turns received bytes into payload; `done` once the framing says that the body is complete."""

    done: bool

    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`. Raises ValueError for broken framing."""
        ...


class ChunkReader:
    """Decode `Transfer-Encoding: chunked` (RFC 9112 section 7.1), however the bytes are cut."""

    def __init__(self) -> None:
        self.done = False
        self._held = b""  # an incomplete line
        self._left = 0  # bytes still to come: of this chunk's data, plus its closing CRLF
        self._in_trailers = False
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        payload: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            at = self._chunk(data, at, payload) if self._left else self._line(data, at)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _chunk(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Take what is there of a chunk's data and of the CRLF behind it."""
        end = min(at + self._left, len(data))
        self._left -= end - at
        # The last two bytes of a chunk are its CRLF: the payload in [at:end] ends before them.
        data_end = end - max(0, 2 - self._left)
        if data_end > at:
            payload.append(data[at:data_end])
        closing = data[max(at, data_end) : end]
        if closing and closing != (b"\r\n"[: 2 - self._left])[-len(closing) :]:
            raise ValueError("a chunk does not end where it said")
        return end

    def _line(self, data: bytes, at: int) -> int:
        """Read one size line or trailer; hold it if it is not all there yet."""
        end = data.find(b"\r\n", at)
        if (len(data) if end < 0 else end) - at > _LINE_LIMIT:
            raise ValueError(f"a chunk header is longer than {_LINE_LIMIT} bytes")
        if end < 0:
            self._held = data[at:]
            return len(data)
        line = data[at:end]
        if self._in_trailers:
            self._trailer(line)
        else:
            size = _size(line)
            self._left = size + 2 if size else 0
            self._in_trailers = not size
        return end + 2

    def _trailer(self, line: bytes) -> None:
        self.done = not line
        self._trailers += len(line)
        if self._trailers > _TRAILERS_LIMIT:
            raise ValueError(f"the trailers are longer than {_TRAILERS_LIMIT} bytes")


class PlainReader:
    """A body that is not chunked: `length` bytes, or with None up to the end of the connection."""

    def __init__(self, length: int | None) -> None:
        self.done = length == 0
        self.open_ended = length is None
        self._left = length

    def feed(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        payload = data[: self._left]
        self._left -= len(payload)
        self.done = not self._left
        return payload


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    # int() alone would also take signs, underscores and 0x
    if not 0 < len(digits) <= 8 or digits.strip(_HEX):
        raise ValueError("a chunk size is not a hexadecimal number of at most 8 digits")
    return int(digits, 16)
