"""What does a request body say? One JSON value, read as Go reads it, whatever the bytes.

Never raises anything but BadInput. Knows no field names: `fields.py` does that part.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from math import isfinite, isinf
from typing import NoReturn, TypeGuard

from vllamad.errors import BadInput

MAX_DEPTH = 128
MAX_ELEMENTS = 200_000
MAX_ESCAPES = 2_000_000  # reading them holds up everything else in the process
MAX_NUMBER = 1_000  # characters; Python takes its time over millions
MAX_QUOTED = 2_000  # characters of a client's text that an error repeats
_SPACE = " \t\r\n"

# A string is one token, so brackets inside it do not count. Possessive: no backtracking.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]|,', re.DOTALL)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE_CUT_SHORT = re.compile(r"\\u[0-9a-fA-F]{0,4}\Z")

_EXPECTED = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": (
        "looking for beginning of object key string"
    ),
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after a value",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
    "Invalid control character at": "in string literal",
}


def decode(body: bytes) -> object:
    """Read the first JSON value of `body`; what follows it is ignored, as Go does.

    Invalid UTF-8 and lone surrogates become U+FFFD. Raises BadInput with Go's text.
    """
    text = body.decode("utf-8", "replace").lstrip(_SPACE)
    if not text:
        raise BadInput("missing request body")
    _refuse_excess(text)
    try:
        value: object = _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        raise _as_go_says(text, error) from None
    return _without_surrogates(value) if _SURROGATE_ESCAPE.search(text) else value


def is_list(value: object) -> TypeGuard[list[object]]:
    """Is this decoded value a JSON array?"""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Is this decoded value a JSON object?"""
    return isinstance(value, dict)


def quoted(text: str) -> str:
    """Quote as Go's %q does: printable text stays, the rest is escaped, what is too long is cut."""
    if len(text) > MAX_QUOTED:
        text = text[:MAX_QUOTED] + "…"
    return '"' + "".join(map(_escaped, text)) + '"'


def spelled(number: float) -> str:
    """Spell a number as Go's %v does a float64: from a million on with an exponent."""
    if abs(number) < 1e6 or not isfinite(number):
        return str(int(number)) if float(number).is_integer() else repr(float(number))
    mantissa, exponent = f"{Decimal(repr(float(number))).normalize():e}".split("e")
    return f"{mantissa}e{int(exponent):+03}"


def _refuse_excess(text: str) -> None:
    """Refuse too deep or too many values before any of them is built."""
    if text.count("\\") > MAX_ESCAPES:
        raise BadInput(f"cannot read JSON with more than {MAX_ESCAPES} escapes")
    opened = text.count("[") + text.count("{")
    if opened <= MAX_DEPTH and opened + text.count(",") <= MAX_ELEMENTS:
        return  # whatever is inside strings, it cannot be too much
    depth = elements = 0
    for match in _TOKEN.finditer(text):
        first = text[match.start()]
        if first in "[{":
            depth += 1
        elif first in "]}":
            depth -= 1
        if depth <= 0:
            return  # the first value has ended
        elements += first in "[{,"
        if depth > MAX_DEPTH:
            raise BadInput(f"cannot read JSON nested deeper than {MAX_DEPTH} levels")
        if elements > MAX_ELEMENTS:
            raise BadInput(f"cannot read JSON with more than {MAX_ELEMENTS} elements")


def _as_go_says(text: str, error: json.JSONDecodeError) -> BadInput:
    rest = text[error.pos :]
    unfinished = (
        not rest
        or error.msg.startswith("Unterminated string")
        or (error.msg == "Expecting value" and _begins_a_literal(rest))
        or (error.msg == "Invalid \\uXXXX escape" and _ESCAPE_CUT_SHORT.search(text))
    )
    if unfinished:
        return BadInput("unexpected EOF")
    return BadInput(
        f"invalid character {_character(rest[0])} {_EXPECTED.get(error.msg, error.msg)}"
    )


def _begins_a_literal(rest: str) -> bool:
    return any(word.startswith(rest) for word in ("true", "false", "null", "-"))


def _character(char: str) -> str:
    return {"'": r"'\''", '"': "'\"'"}.get(char, f"'{_escaped(char)}'")


_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f",
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _integer(text: str) -> int | float:
    """A whole number of at most 64 bits; beyond that a float, as in Go's interface values."""
    if len(text) <= 20 and -(1 << 63) <= (number := int(text)) < 1 << 64:
        return number
    return _finite(text)


def _finite(text: str) -> float:
    if len(text) > MAX_NUMBER or isinf(number := float(text)):
        raise BadInput(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")
    return number


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are Python's own: no JSON."""
    place = "in numeric literal" if name[0] == "-" else "looking for beginning of value"
    raise BadInput(f"invalid character '{name.lstrip('-')[0]}' {place}")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_constant)


def _without_surrogates(value: object) -> object:
    """Replace lone surrogates, which no UTF-8 can carry; depth is bounded by now."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if is_list(value):
        return [_without_surrogates(item) for item in value]
    if is_object(value):
        return {
            _LONE_SURROGATE.sub("\ufffd", key): _without_surrogates(item)
            for key, item in value.items()
        }
    return value
