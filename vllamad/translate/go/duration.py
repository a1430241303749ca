"""Reads Go's duration strings ("5m"), and Ollama's `keep_alive` built on them.

Knows no settings; each error text is the one that Go or Ollama prints.
"""

from __future__ import annotations

import re
from math import inf

from vllamad.errors import BadInput

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_GO_TYPES = {"bool": "bool", "list": "[]interface {}", "dict": "map[string]interface {}"}
_LONGEST = (1 << 63) - 1  # nanoseconds, about 292 years: Ollama's "for ever"
_MAX_TEXT = 1000  # characters
_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> float:
    """Read a Go duration string ("1h30m", "300ms", "-1m", "0") as seconds.

    Raises BadInput with Go's literal text, also for a text of more than 1,000 characters.
    """
    if len(text) > _MAX_TEXT:
        raise _invalid(text[:_MAX_TEXT])
    nanoseconds = _sum_of_terms(text, text[1:] if text[:1] in ("-", "+") else text)
    return (-nanoseconds if text.startswith("-") else nanoseconds) / 1e9


def parse_keep_alive(value: object) -> float | None:
    """Read a `keep_alive` field as seconds, math.inf for ever, None where the field is absent.

    Raises BadInput with Ollama's literal text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise BadInput(f"Unsupported type: '{_GO_TYPES[type(value).__name__]}'")
    return inf if seconds < 0 or seconds * 1e9 >= _LONGEST else seconds


def _sum_of_terms(whole: str, rest: str) -> int:
    """Add up terms such as "1h" and ".5s"; nanoseconds, never negative."""
    if rest == "0":
        return 0
    if not rest:
        raise _invalid(whole)
    total = 0
    while rest:
        term = _TERM.match(rest)
        assert term is not None  # the pattern matches the empty string too
        total += _nanoseconds(whole, *term.groups(default=""))
        if total > _LONGEST:
            raise _invalid(whole)
        rest = rest[term.end() :]
    return total


def _nanoseconds(whole: str, digits: str, fraction: str, unit: str) -> int:
    if not digits and not fraction:
        raise _invalid(whole)
    # A number that overflows is invalid before its unit is looked at.
    if len(digits.lstrip("0")) > 19 or int(digits or "0") > _LONGEST:
        raise _invalid(whole)
    if not unit:
        raise BadInput(f"time: missing unit in duration {_quoted(whole)}")
    if unit not in _NANOSECONDS:
        raise BadInput(f"time: unknown unit {_quoted(unit)} in duration {_quoted(whole)}")
    size = _NANOSECONDS[unit]
    part = fraction[:18]  # the digits after these are less than a nanosecond
    return int(digits or "0") * size + int(part or "0") * size // 10 ** len(part)


def _invalid(whole: str) -> BadInput:
    return BadInput(f"time: invalid duration {_quoted(whole)}")


def _quoted(text: str) -> str:
    """Quote as Go's time package does: bytes outside printable ASCII become \\xNN."""
    escaped = "".join(
        f"\\x{byte:02x}" if byte < 0x20 or byte >= 0x80 else chr(byte)
        for byte in text.replace("\\", "\\\\").replace('"', '\\"').encode(errors="replace")
    )
    return f'"{escaped}"'
