"""Prints moments as Go does: RFC 3339 in UTC, from nanoseconds since the epoch.

Has no clock: callers pass the time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

_SECOND = 1_000_000_000
_LONGEST = (1 << 63) - 1  # nanoseconds: how far ahead Ollama's "for ever" is
_LAST = 253_402_300_799  # seconds: the end of the year 9999, where datetime ends


def rfc3339(now_ns: int) -> str:
    """Print a moment: at most nine fractional digits, no trailing zeros, `Z`."""
    seconds, fraction = divmod(now_ns, _SECOND)
    moment = datetime.fromtimestamp(min(seconds, _LAST), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return moment + "Z"
    return f"{moment}.{fraction:09d}".rstrip("0") + "Z"


def expires_at(now_ns: int, expires_in: float | None) -> str:
    """Print when a model is unloaded; None or math.inf is for ever: about 292 years ahead."""
    if expires_in is None or expires_in == inf:
        return rfc3339(now_ns + _LONGEST)
    return rfc3339(now_ns + int(expires_in * _SECOND))


class Stamps:
    """`rfc3339` for a stream: the second is formatted once, only the fraction each time."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = b""

    def __call__(self, now_ns: int) -> bytes:
        """Print a moment as bytes, to the microsecond."""
        second, fraction = divmod(now_ns, _SECOND)
        if second != self._second:
            self._second = second
            self._prefix = rfc3339(second * _SECOND)[:-1].encode()
        micros = fraction // 1000
        if not micros:
            return self._prefix + b"Z"
        return (b"%b.%06d" % (self._prefix, micros)).rstrip(b"0") + b"Z"
