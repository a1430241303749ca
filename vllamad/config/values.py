"""Kinds of values: reading each from TOML and from plain text, refusals, and writing it again.

Knows no settings.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vllamad.config.listen_address import parse_listen, spell_listen
from vllamad.config.settings import FOREVER
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput
from vllamad.translate.go.duration import parse_duration

Toml = str | bool | int | float | list[str]

_LONGEST = 1e10  # seconds: past every use, and float arithmetic on deadlines stays exact
_LARGEST = (1 << 53) - 1  # what JSON clients can still count
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}  # fmt: skip
_ORIGIN = re.compile(r"(https?|(chrome|safari|moz|ms-browser)-extension)://[^*]+|[^*]*\*[^*]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value.

    `check` turns a TOML value into ours, `from_text` a text of the environment or the command line
    into a TOML value; both raise ValueError. `spell` turns ours into TOML again.
    """

    what: str
    check: Callable[[object], object]
    from_text: Callable[[str], object]
    spell: Callable[[object], Toml]


def wrong_value(what: str, value: object) -> ValueError:
    """The one form of an error for a value of another kind."""
    if isinstance(value, dict):
        shown = "a table"
    elif isinstance(value, list):
        shown = "a list"
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
        shown = text if len(text) <= 80 else f"{text[:77]}..."
    return ValueError(f"must be {what}, not {shown}")


def text_kind(pattern: str = r"[^\x00]*", what: str = "a text") -> Kind:
    """A string; `pattern` is what it must match as a whole."""

    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL):
            return value
        raise wrong_value(what, value)

    return Kind(what=what, check=check, from_text=str, spell=str)


def choice_kind(*names: str) -> Kind:
    """One of a few words."""
    return text_kind("|".join(names), " or ".join(f'"{name}"' for name in names))


def boolean_kind() -> Kind:
    """true or false; from text also what Go's ParseBool takes, and on/off, yes/no."""

    def check(value: object) -> object:
        if isinstance(value, bool):
            return value
        raise wrong_value("true or false", value)

    def from_text(value: str) -> object:
        word = value.lower()
        if word in ("1", "t", "true", "yes", "on"):
            return True
        return False if word in ("0", "f", "false", "no", "off") else value

    return Kind(what="true or false", check=check, from_text=from_text, spell=bool)


def whole_kind(low: int = 0, high: int = _LARGEST) -> Kind:
    """A whole number within limits."""
    limits = f"of at least {low}" if high == _LARGEST else f"from {low} to {high}"
    what = f"a whole number {limits}"

    def check(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise wrong_value(what, value)

    return Kind(what=what, check=check, from_text=_number, spell=lambda value: cast("int", value))


def size_kind(low: int = 0) -> Kind:
    """Bytes: a whole number, or a text such as "1GiB" or "10MB"."""
    limit = f" of at least {spell_size(low)}" if low else ""
    what = f'a size{limit} such as 1048576, "512MiB" or "10MB"'

    def check(value: object) -> object:
        number = value
        if isinstance(value, str):
            found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", value)
            if found and found[2] in _UNITS:
                number = round(float(found[1]) * _UNITS[found[2]])
        if isinstance(number, int) and not isinstance(number, bool) and low <= number <= _LARGEST:
            return number
        raise wrong_value(what, value)

    return Kind(
        what=what,
        check=check,
        from_text=_number,
        spell=lambda value: spell_size(cast("int", value)),
    )


def duration_kind(*, zero: bool = True, forever: bool = False, negative: bool = False) -> Kind:
    """Seconds: a number, or a Go duration.

    `forever` admits "forever"; `negative` means that a negative one says so too.
    """
    what = 'a duration such as 30, "90s" or "1h30m"' + (', or "forever"' if forever else "")
    what = what if zero else what.replace("a duration", "a duration above zero", 1)

    def check(value: object) -> object:
        if forever and value == "forever":
            return FOREVER
        seconds = _seconds(value)
        if seconds is None or math.isnan(seconds):
            raise wrong_value(what, value)
        if negative and seconds < 0:
            return FOREVER
        if not (0 if zero else 1e-9) <= seconds <= _LONGEST:
            raise wrong_value(what, value)
        return seconds

    return Kind(
        what=what,
        check=check,
        from_text=_number,
        spell=lambda value: spell_duration(cast("float", value)),
    )


def share_kind() -> Kind:
    """A number from 0 to 1."""
    what = "a number from 0 to 1"

    def check(value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return float(value)
        raise wrong_value(what, value)

    return Kind(what=what, check=check, from_text=_number, spell=lambda value: cast("float", value))


def scalar_kind() -> Kind:
    """A flag of the engine: a text, true or false, or a number."""
    what = "a text, true or false, or a number"

    def check(value: object) -> object:
        if isinstance(value, str | bool | int) or (
            isinstance(value, float) and math.isfinite(value)
        ):
            return value
        raise wrong_value(what, value)

    def from_text(value: str) -> object:
        return value == "true" if value in ("true", "false") else _number(value)

    return Kind(
        what=what, check=check, from_text=from_text, spell=lambda value: cast("Toml", value)
    )


def list_kind(item: Kind, what: str = "a list of texts", *, least: int = 0) -> Kind:
    """A list of at least so many texts, separated by commas where it comes as one text."""
    what = f"{what}, at least {least}" if least else what

    def check(value: object) -> object:
        if not isinstance(value, list) or len(cast("list[object]", value)) < least:
            raise wrong_value(what, cast("object", value))
        return tuple(item.check(entry) for entry in cast("list[object]", value))

    return Kind(
        what=what,
        check=check,
        from_text=lambda value: [part.strip() for part in value.split(",") if part.strip()],
        spell=lambda value: [str(entry) for entry in cast("tuple[str, ...]", value)],
    )


def address_kind() -> Kind:
    """An address to listen on."""
    what = 'an address such as "127.0.0.1:11434" or "[::1]:11434"'

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise wrong_value(what, value)
        try:
            return spell_listen(*parse_listen(value))
        except ValueError as error:
            raise ValueError(f"{wrong_value(what, value)}: {error}") from None

    return Kind(what=what, check=check, from_text=str, spell=str)


def origin_kind() -> Kind:
    """A web origin, by the rules Ollama has for OLLAMA_ORIGINS."""
    what = 'a web origin such as "https://example.com", with at most one "*"'
    plain = text_kind(_ORIGIN.pattern, what)
    return Kind(what=what, check=plain.check, from_text=str, spell=str)


def model_name_kind() -> Kind:
    """A model's name in any spelling, as the shortest that means the same."""
    what = 'a model name such as "qwen2.5:7b"'

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise wrong_value(what, value)
        try:
            return parse_model_name(value).display()
        except BadInput:
            raise wrong_value(what, value) from None

    return Kind(what=what, check=check, from_text=str, spell=str)


def path_kind() -> Kind:
    """An absolute path, or one below the home directory (`~/`), which the caller expands."""
    what = 'an absolute path, or one that starts with "~/"'
    plain = text_kind(r"(~?/[^\x00]*)", what)
    return Kind(
        what=what,
        check=lambda value: Path(cast("str", plain.check(value))),
        from_text=str,
        spell=str,
    )


def spell_duration(seconds: float) -> str:
    """Seconds as people write them, exact to the nanosecond: "1h30m", "1.5s", "forever"."""
    if seconds == FOREVER:
        return "forever"
    if seconds != round(seconds, 3):
        return f"{seconds:.9f}".rstrip("0") + "s"
    whole_seconds, thousandths = divmod(round(seconds * 1000), 1000)
    hours, minutes, rest = whole_seconds // 3600, whole_seconds // 60 % 60, whole_seconds % 60
    last = f"{rest}.{thousandths:03}".rstrip("0") if thousandths else str(rest)
    parts = ((str(hours), "h"), (str(minutes), "m"), (last, "s"))
    return "".join(number + unit for number, unit in parts if number != "0") or "0s"


def spell_size(number: int) -> Toml:
    """Bytes in the largest unit that divides them."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if number and number % _UNITS[unit] == 0:
            return f"{number // _UNITS[unit]}{unit}"
    return number


def _number(value: str) -> object:
    """A text that spells a number as that number; any other unchanged."""
    for pattern, convert in ((r"[+-]?\d{1,18}", int), (r"[+-]?\d{1,18}\.\d{1,18}", float)):
        if re.fullmatch(pattern, value):
            return convert(value)
    return value


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except BadInput:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(max(value, -_LONGEST), 2 * _LONGEST))
