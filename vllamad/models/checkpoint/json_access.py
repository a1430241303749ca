"""Reads values out of decoded JSON of unknown shape: a value of a wrong type counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import cast

import msgspec

from vllamad.errors import BadInput

Json = Mapping[str, object]


def decode_object(data: bytes, name: str) -> Json:
    """Decode a JSON object, or raise BadInput that names the file `name`."""
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (ValueError, RecursionError) as error:
        raise BadInput(f"cannot use {name}: it is not a JSON object") from error


def get_object(source: Json, key: str) -> Json:
    """The object at `key`, or an empty one."""
    value = source.get(key)
    # The keys of a JSON object are texts.
    return cast("Json", value) if isinstance(value, dict) else {}


def get_list(source: Json, key: str) -> list[object]:
    """The list at `key`, or an empty one."""
    value = source.get(key)
    return cast("list[object]", value) if isinstance(value, list) else []


def get_text(source: Json, *keys: str) -> str:
    """The value of the first of `keys` that is a text, or ""."""
    return next((value for key in keys if isinstance(value := source.get(key), str)), "")


def get_whole(source: Json, *keys: str) -> int:
    """The value of the first of `keys` that is a whole number above 0, or 0."""
    values = (source.get(key) for key in keys)
    return next((value for value in values if type(value) is int and 0 < value < 1 << 53), 0)


def get_number(source: Json, key: str) -> float | None:
    """The finite number at `key`, or None; a boolean is not a number."""
    value = source.get(key)
    if type(value) in (int, float) and isfinite(cast("float", value)):
        return cast("float", value)
    return None
