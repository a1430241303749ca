"""A reply held against the types of the official SDKs, strictly.

The SDKs build their objects without a check, so a reply with a missing key only fails later, in
the user's code. Here each required key has to be there, each value to be of its type, and a key
that the type does not have is a fault.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

_PLAIN: dict[object, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    type(None): (type(None),),
}


def faults(
    value: object,
    wanted: object,
    *,
    extra: Collection[str] = (),
    nullable: Collection[str] = (),
    required: Collection[str] = (),
) -> list[str]:
    """What in `value`, decoded JSON, is not as the SDK's type `wanted` has it; [] when all is well.

    Places are dotted, without the indexes of lists: "choices.message.role". `extra` are places of
    keys that are welcome although the type has none, `nullable` those that may be null although
    the type says otherwise, `required` those that must be there, null or not, although the SDK has
    a default for them.
    """
    return list(_Check(extra, nullable, required).faults(value, wanted, ""))


class _Check:
    def __init__(
        self, extra: Collection[str], nullable: Collection[str], required: Collection[str]
    ) -> None:
        self._extra = extra
        self._nullable = nullable
        self._required = required

    def faults(self, value: object, wanted: Any, place: str) -> Iterator[str]:
        origin = get_origin(wanted)
        if value is None and place in self._nullable:
            return
        if origin is typing.Annotated:
            yield from self.faults(value, get_args(wanted)[0], place)
        elif origin in (typing.Union, types.UnionType):
            yield from self._any_of(value, get_args(wanted), place)
        elif origin is Literal:
            if value not in get_args(wanted):
                yield f"{place}: {value!r} is none of {list(get_args(wanted))}"
        elif wanted in (Any, object):
            return
        elif wanted in _PLAIN:
            if not isinstance(value, _PLAIN[wanted]) or (wanted in (int, float) and value is True):
                yield f"{place}: {value!r} is no {wanted.__name__}"
        else:
            yield from self._compound(value, wanted, origin, place)

    def _compound(self, value: Any, wanted: Any, origin: object, place: str) -> Iterator[str]:
        if list in (origin, wanted):
            if not isinstance(value, list):
                yield f"{place}: {value!r} is no list"
                return
            items: list[object] = typing.cast("list[object]", value)
            for item in items:
                yield from self.faults(item, (get_args(wanted) or (object,))[0], place)
        elif dict in (origin, wanted):
            if not isinstance(value, dict):
                yield f"{place}: {value!r} is no object"
                return
            for item in typing.cast("dict[str, object]", value).values():
                yield from self.faults(item, (get_args(wanted) or (str, object))[1], place)
        elif isinstance(wanted, type) and issubclass(wanted, BaseModel):
            yield from self._model(value, wanted, place)
        else:
            raise AssertionError(f"no check for {wanted!r} at {place}")

    def _model(self, value: Any, wanted: type[BaseModel], place: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{place}: {value!r} is no {wanted.__name__}"
            return
        found = typing.cast("dict[str, object]", value)
        known = {field.alias or name: field for name, field in wanted.model_fields.items()}
        for name, field in known.items():
            inner = f"{place}.{name}" if place else name
            if name in found:
                yield from self.faults(found[name], field.annotation, inner)
            elif field.is_required() or inner in self._required:
                yield f"{inner}: missing, {wanted.__name__} requires it"
        for name in found.keys() - known.keys():
            inner = f"{place}.{name}" if place else name
            if inner not in self._extra:
                yield f"{inner}: {wanted.__name__} has no such key"

    def _any_of(self, value: object, options: tuple[Any, ...], place: str) -> Iterator[str]:
        """The faults of the option that fits best: the one with the value's own `type`, if any."""
        kind = f"{place}.type: " if place else "type: "
        tried = [
            list(self.faults(value, option, place))
            for option in options
            if value is None or option is not type(None)
        ]
        yield from min(
            tried, key=lambda found: (any(one.startswith(kind) for one in found), len(found))
        )
