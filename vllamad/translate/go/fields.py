"""Reads JSON values into fields as Go's decoder does, and refuses them in its words.

Keys match in any case, null is absent, unknown keys are ignored. Knows no request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from vllamad.errors import BadInput
from vllamad.translate.go.json_decoder import is_list, is_object

T = TypeVar("T")
Read = Callable[[object, str], T]  # takes a value and its path: "ChatRequest.messages.role"


def read_fields(
    value: object, where: str, go_type: str, table: Mapping[str, Read[object]]
) -> dict[str, object]:
    """Read an object's fields by `table`, from keys in lower case to readers; null is absent.

    Raises BadInput for the first misfit in the order of the document.
    """
    if not is_object(value):
        raise misfit(value, where, go_type)
    fields: dict[str, object] = {}
    for key, item in value.items():
        name = key.lower()
        if item is not None and name in table:
            fields[name] = table[name](item, f"{where}.{name}")
    return fields


def lowered(value: Mapping[str, object]) -> dict[str, object]:
    """Return an object with keys in lower case and without nulls; of equal keys the last wins."""
    return {key.lower(): item for key, item in value.items() if item is not None}


def string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise misfit(value, where, "string")
    return value


def boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise misfit(value, where, "bool")
    return value


def integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise misfit(value, where, "int", f"number {value}" if isinstance(value, float) else "")
    return value


def whole(value: object, where: str) -> int:
    """Read a whole number, written with or without a fraction of 0: to JSON both are the same."""
    return integer(int(value) if isinstance(value, float) and value.is_integer() else value, where)


def number(go_type: str) -> Read[float]:
    """Make a reader of numbers of the type `go_type`."""

    def read_number(value: object, where: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise misfit(value, where, go_type)
        return value

    return read_number


def mapping(value: object, where: str) -> dict[str, object]:
    if not is_object(value):
        raise misfit(value, where, "map[string]interface {}")
    return value


def string_map(value: object, where: str) -> dict[str, str]:
    if not is_object(value):
        raise misfit(value, where, "map[string]string")
    return {name: string(item, where) for name, item in value.items() if item is not None}


def anything(value: object, where: str) -> object:
    return value


def list_of(read: Read[T], go_type: str, limit: int) -> Read[list[T]]:
    """Make a reader of arrays of at most `limit` elements; null elements are dropped."""

    def read_list(value: object, where: str) -> list[T]:
        if not is_list(value):
            raise misfit(value, where, go_type)
        if len(value) > limit:
            raise BadInput(f"cannot take {len(value)} {where.split('.', 1)[-1]}, at most {limit}")
        return [read(item, where) for item in value if item is not None]

    return read_list


def misfit(value: object, where: str, go_type: str, kind: str = "") -> BadInput:
    """Name the value that does not fit and its place, in the words of Go's encoding/json."""
    field = f"Go struct field {where} of type" if "." in where else "Go value of type"
    return BadInput(f"json: cannot unmarshal {kind or _kind(value)} into {field} {go_type}")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if is_list(value) else "object"


def go_type(value: object) -> str:
    """Name the Go type of a decoded value that is not a string."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "float64"
    return "[]interface {}" if is_list(value) else "map[string]interface {}"
