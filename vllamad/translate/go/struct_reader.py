"""Reads a JSON body into a struct as Go's decoder does, by nothing but the struct's annotations.

msgspec decodes each body that Go reads the same way. Go's rules read the others again: keys in
another case, null, unknown keys; or they refuse them in Go's words. Knows no request.

Each field of a struct has a default. Go's messages call the struct by its `GO_TYPE`, or else `api.`
and its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Generic,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.go import fields, json_decoder
from vllamad.translate.go.fields import Read

S = TypeVar("S", bound=msgspec.Struct)

_UNREADABLE = (msgspec.DecodeError, BadInput, RecursionError)


class GoValue(ABC):
    """A value with a form of its own in JSON, such as a duration."""

    @classmethod
    @abstractmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read a decoded value that is not null. Raises BadInput."""


@dataclass(frozen=True, slots=True)
class ReadWith:
    """In `Annotated`: the reader of this field under Go's rules.

    It returns each value that the annotated type takes as it is.
    """

    read: Read[object]


@dataclass(frozen=True, slots=True)
class GoName:
    """In `Annotated`: what Go's messages call a type that does not follow from the annotation."""

    text: str


# A whole number as Go's int holds it; msgspec's own has no limit.
Int = Annotated[
    int,
    msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1),
    ReadWith(fields.integer),
    GoName("int"),
]


class RequestReader(Generic[S]):
    """Reads bodies of one struct; lists have the limits of their `msgspec.Meta(max_length=...)`."""

    def __init__(self, struct: type[S]) -> None:
        self._struct = struct
        self._decoder = msgspec.json.Decoder(struct, dec_hook=_from_builtins)
        self._read = _struct_reader(struct)

    def read(self, body: bytes) -> S:
        """Read a body. Raises BadInput with Go's text."""
        if json_decoder.is_within_limits(body):
            try:
                return self._decoder.decode(body)
            except _UNREADABLE:
                pass  # Go's rules read it, or name the fault
        return self.read_by_gos_rules(body)

    def read_by_gos_rules(self, body: bytes) -> S:
        """Read a body without msgspec. Raises BadInput with Go's text."""
        value = json_decoder.decode(body)
        return self._struct() if value is None else self._read(value, self._struct.__name__)


def _from_builtins(kind: type, value: object) -> object:
    """Check or make the values that msgspec leaves to us: those of any type, and GoValues."""
    if not json_decoder.is_read_alike(value):
        raise BadInput("cannot read this as Go does")
    return kind.from_json(value, "") if issubclass(kind, GoValue) else value


def _struct_reader(struct: type[S]) -> Read[S]:
    """Make the reader of a struct under Go's rules, from its fields."""
    if not struct.__struct_config__.forbid_unknown_fields:
        raise TypeError(f"{struct.__name__} must forbid unknown fields: keys count in any case")
    types = get_type_hints(struct, include_extras=True)
    struct_fields = msgspec.structs.fields(struct)
    readers: Mapping[str, Read[object]] = {
        field.encode_name: _reader(types[field.name]) for field in struct_fields
    }
    names = {field.encode_name: field.name for field in struct_fields}

    def read_struct(value: object, where: str) -> S:
        values = fields.read_fields(value, where, _go_name(struct), readers)
        return struct(**{names[key]: item for key, item in values.items()})

    return read_struct


def _reader(annotation: object) -> Read[object]:
    """Make the reader of a field under Go's rules, from its annotation."""
    kind, notes = _parts(annotation)
    for note in notes:
        if isinstance(note, ReadWith):
            return note.read
    limit = next((note.max_length for note in notes if isinstance(note, msgspec.Meta)), None)
    if get_origin(kind) is list and limit is not None:
        return fields.list_of(_reader(get_args(kind)[0]), _go_name(annotation), limit)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_reader(kind)
    if isinstance(kind, type) and issubclass(kind, GoValue):
        return kind.from_json
    if kind not in _PLAIN:
        raise TypeError(f"no reader for {kind}: name one with ReadWith, or the limit of a list")
    return _PLAIN[kind][0]


def _go_name(annotation: object) -> str:
    """Give what Go's messages call the type of an annotation."""
    kind, notes = _parts(annotation)
    for note in notes:
        if isinstance(note, GoName):
            return note.text
    if get_origin(kind) is list:
        return "[]" + _go_name(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct | GoValue):
        return str(getattr(kind, "GO_TYPE", f"api.{kind.__name__}"))
    return _PLAIN[kind][1]


def _parts(annotation: object) -> tuple[object, tuple[object, ...]]:
    """Split an annotation into its type, without None, and the notes of `Annotated`."""
    kind, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if get_origin(kind) in (Union, UnionType):
        kinds = [part for part in get_args(kind) if part is not NoneType]
        kind = kinds[0] if len(kinds) == 1 else kind
    return kind, tuple(notes)


_PLAIN: Mapping[object, tuple[Read[object], str]] = {
    bool: (fields.boolean, "bool"),
    dict[str, object]: (fields.mapping, "map[string]interface {}"),
    dict[str, str]: (fields.string_map, "map[string]string"),
    object: (fields.anything, "interface {}"),
    str: (fields.string, "string"),
}
