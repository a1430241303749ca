"""Numbers and times for people: "271 MB", "4 minutes from now". Pure; `now` is an argument."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Control characters of C0, DEL and C1 could steer the reader's terminal; tab may stay.
_CONTROL = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "�")


def clean(text: str) -> str:
    """Return one line without control characters, safe for a terminal."""
    return text.translate(_CONTROL)


def clean_lines(text: str) -> str:
    """Return lines without control characters, safe for a terminal."""
    return "\n".join(map(clean, text.split("\n")))


def as_text(words: str) -> str:
    """Return command-line text as valid UTF-8; other bytes become replacement characters."""
    return words.encode(errors="surrogateescape").decode(errors="replace")


def size(count: int) -> str:
    """Format bytes in decimal units, as the `ollama` command does."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= scale:
            value = count / scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Format a length of time in words: "4 minutes", "About an hour"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < _MINUTE:
        return _count(whole, "second")
    if whole < 2 * _MINUTE:
        return "About a minute"
    if whole < _HOUR:
        return _count(whole // _MINUTE, "minute")
    if whole < 2 * _HOUR:
        return "About an hour"
    if whole < 2 * _DAY:
        return _count(whole // _HOUR, "hour")
    for unit, days in (("day", 14), ("week", 60), ("month", 730)):
        if whole < days * _DAY:
            return _count(whole // (_DAY * {"day": 1, "week": 7, "month": 30}[unit]), unit)
    return _count(whole // (365 * _DAY), "year")


def from_now(seconds: float | None) -> str:
    """Format an end time; None means never."""
    return "Forever" if seconds is None else f"{duration(max(seconds, 0.0))} from now"


def ago(moment: str, now: float) -> str:
    """Format the age of an RFC 3339 time; `now` in seconds since 1970. Other text stays."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment or "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return f"{duration(max(now - then.timestamp(), 0.0))} ago"


def clock(seconds: float) -> str:
    """Format a running time, short: "0.4s", "12s", "3m05s", "2h00m"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
