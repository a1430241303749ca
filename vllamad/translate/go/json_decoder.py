"""Decodes a request body as Go does: one JSON value, within limits.

Raises nothing but BadInput, for any bytes. Knows no field names: see `fields.py`.
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
MAX_ESCAPES = 2_000_000  # decoding more blocks the process for too long
MAX_NUMBER = 1_000  # characters; Python converts millions of digits slowly
MAX_QUOTED = 2_000  # characters of a client's text that an error repeats
_SAFE_DEPTH = 100  # of a value inside a request: less than MAX_DEPTH with all that surrounds it
_SPACE = " \t\r\n"

# A string is one token, so that brackets inside it do not count. Possessive: no backtracking.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]|,', re.DOTALL)
# In every hundredth byte, a number of over MAX_NUMBER characters fills ten in a row.
_SAMPLE = 100
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{10}")
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
    """Read the first JSON value of `body`; as in Go, the bytes after it are ignored.

    Invalid UTF-8 and lone surrogates become U+FFFD. Raises BadInput with Go's text.
    """
    text = body.decode("utf-8", "replace").lstrip(_SPACE)
    if not text:
        raise BadInput("missing request body")
    _refuse_excess(text)
    try:
        value: object = _DECODER.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        raise _in_gos_words(text, error) from None
    return _without_surrogates(value) if _SURROGATE_ESCAPE.search(text) else value


def is_within_limits(body: bytes) -> bool:
    """Return true if `body` keeps the limits on elements, escapes and numbers for certain.

    False says only that `decode` has to count. The depth is for `is_read_alike`.
    """
    return (
        body.count(b"\\") <= MAX_ESCAPES
        and body.count(b"[") + body.count(b"{") + body.count(b",") <= MAX_ELEMENTS
        and _LONG_NUMBER.search(body[::_SAMPLE]) is None
    )


def is_read_alike(value: object, levels: int = _SAFE_DEPTH) -> bool:
    """Return true if `decode` gives this value that msgspec decoded inside a request.

    msgspec has no limit on depth and reads whole numbers of any size, which are floats in Go.
    """
    if type(value) is int:
        return _is_64_bit(value)
    items = value.values() if is_object(value) else value if is_list(value) else ()
    return levels > 0 and all(is_read_alike(item, levels - 1) for item in items)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Return true for a JSON array."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Return true for a JSON object."""
    return isinstance(value, dict)


def quoted(text: str) -> str:
    """Quote as Go's %q does: printable text as it is, the rest escaped; a long text is cut."""
    if len(text) > MAX_QUOTED:
        text = text[:MAX_QUOTED] + "…"
    return '"' + "".join(map(_escaped, text)) + '"'


def spelled(number: float) -> str:
    """Write a number as Go's %v writes a float64: from a million on with an exponent."""
    if abs(number) < 1e6 or not isfinite(number):
        return str(int(number)) if float(number).is_integer() else repr(float(number))
    mantissa, exponent = f"{Decimal(repr(float(number))).normalize():e}".split("e")
    return f"{mantissa}e{int(exponent):+03}"


def _refuse_excess(text: str) -> None:
    """Refuse values nested too deep, or too many, before any of them is built."""
    if text.count("\\") > MAX_ESCAPES:
        raise BadInput(f"cannot read JSON with more than {MAX_ESCAPES} escapes")
    opened = text.count("[") + text.count("{")
    if opened <= MAX_DEPTH and opened + text.count(",") <= MAX_ELEMENTS:
        return  # within the limits even if every bracket and comma counts
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


def _in_gos_words(text: str, error: json.JSONDecodeError) -> BadInput:
    rest = text[error.pos :]
    unfinished = (
        not rest
        or error.msg.startswith("Unterminated string")
        or (error.msg == "Expecting value" and _is_start_of_literal(rest))
        or (error.msg == "Invalid \\uXXXX escape" and _ESCAPE_CUT_SHORT.search(text))
    )
    if unfinished:
        return BadInput("unexpected EOF")
    return BadInput(
        f"invalid character {_character(rest[0])} {_EXPECTED.get(error.msg, error.msg)}"
    )


def _is_start_of_literal(rest: str) -> bool:
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
    """Read a whole number: of more than 64 bits as a float, as in Go's interface values."""
    if len(text) <= 20 and _is_64_bit(number := int(text)):
        return number
    return _finite(text)


def _is_64_bit(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 64


def _finite(text: str) -> float:
    if len(text) > MAX_NUMBER or isinf(number := float(text)):
        raise BadInput(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")
    return number


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's decoder takes and JSON does not have."""
    context = "in numeric literal" if name[0] == "-" else "looking for beginning of value"
    raise BadInput(f"invalid character '{name.lstrip('-')[0]}' {context}")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_finite, parse_constant=_no_constant)


def _without_surrogates(value: object) -> object:
    """Replace lone surrogates, which UTF-8 cannot encode; the depth is bounded by now."""
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
