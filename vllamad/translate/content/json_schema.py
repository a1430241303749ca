"""May this JSON schema reach the engine? It becomes a grammar there, and bad ones have hurt it.

Judges form and size only; what a grammar cannot express, the engine refuses by itself.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.go.json_decoder import is_list, is_object, quoted

MAX_SIZE = 64 << 10  # bytes, as JSON
MAX_DEPTH = 32
MAX_PATTERN = 512  # characters

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
# Where schemas stand inside schemas; everything else (enum, default, examples...) is data.
_ONE = frozenset({
    "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_MANY = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})

# What is only heeded by those who read the answer.
_UNHEEDED = frozenset({"contains", "maxContains", "minContains", "uniqueItems"})
_FORMATS = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
})  # fmt: skip

# JavaScript's spellings of what Python spells otherwise or not at all.
_JAVASCRIPT = ((re.compile(r"\(\?<(?=[A-Za-z_])"), "(?P<"), (re.compile(r"\\[pP]\{[^}]*\}"), "."))


def vet(schema: object, what: str = "format") -> None:
    """Refuse a schema that is too large or deep, or that says what no schema says.

    Raises BadInput that names the place in it; `what` is what it was given for.
    """
    vet_size(schema, what)
    for place, part in _schemas(schema, ""):
        if (problem := _problem(part)) is not None:
            raise BadInput(f"invalid {what}: {problem} at {place or 'the top'}")


def vet_size(schema: object, what: str) -> None:
    """Refuse a schema that is too large or deep; raises BadInput."""
    size = len(msgspec.json.encode(schema))
    if size > MAX_SIZE:
        raise BadInput(f"invalid {what}: the schema has {size} bytes, at most {MAX_SIZE}")
    if _deeper_than(schema, MAX_DEPTH):
        raise BadInput(f"invalid {what}: the schema is nested deeper than {MAX_DEPTH} levels")


def relaxed(schema: dict[str, object]) -> dict[str, object]:
    """The same without what the engine refuses to know and Ollama never heeded.

    Formats of no grammar are notes to the reader, by the standard; pydantic and zod write them, and
    what makes the items of a list differ. A list of items by place has another name by now.
    """
    fields = {key: _relaxed(key, value) for key, value in schema.items() if key not in _UNHEEDED}
    form = fields.pop("format", None)
    if isinstance(form, str) and form in _FORMATS:
        fields["format"] = form
    if is_list(fields.get("items")):
        fields["prefixItems"] = fields.pop("items")
        if "additionalItems" in fields:
            fields["items"] = fields.pop("additionalItems")
    return fields


def _relaxed(key: str, value: object) -> object:
    if key in _NAMED and is_object(value):
        return {name: relaxed(item) if is_object(item) else item for name, item in value.items()}
    if key in _MANY and is_list(value):
        return [relaxed(item) if is_object(item) else item for item in value]
    return relaxed(value) if key in _ONE and is_object(value) else value


def _schemas(schema: object, place: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every schema in `schema`, itself included, with its place; true and false are schemas too."""
    if not is_object(schema):
        return
    yield place, schema
    for key, value in schema.items():
        inside: list[tuple[str, object]] = []
        if key in _ONE and is_object(value):
            inside = [(key, value)]
        elif key in _MANY and is_list(value):
            inside = [(f"{key}[{i}]", item) for i, item in enumerate(value)]
        elif key in _NAMED and is_object(value):
            inside = [(f"{key}.{name}", item) for name, item in value.items()]
        for name, item in inside:
            yield from _schemas(item, f"{place}.{name}" if place else name)


def _problem(schema: dict[str, object]) -> str | None:
    kinds = schema.get("type")
    for kind in kinds if is_list(kinds) else [kinds]:
        if kind is not None and not (isinstance(kind, str) and kind in _TYPES):
            return f"unknown type {_shown(kind)}"
    reference = schema.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        return f"a reference that leads elsewhere, {_shown(reference)},"
    patterns = [schema["pattern"]] if "pattern" in schema else []
    named = schema.get("patternProperties")
    for pattern in [*patterns, *(named if is_object(named) else ())]:
        if (problem := _pattern_problem(pattern)) is not None:
            return problem
    return None


def _pattern_problem(pattern: object) -> str | None:
    if not isinstance(pattern, str):
        return f"a pattern that is no text, {_shown(pattern)},"
    if len(pattern) > MAX_PATTERN:
        return f"a pattern of {len(pattern)} characters, at most {MAX_PATTERN},"
    text = pattern
    for spelling, ours in _JAVASCRIPT:
        text = spelling.sub(ours, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Python may read otherwise one day
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the pattern {_shown(pattern)} cannot be compiled ({error})"
    return None


def _shown(value: object) -> str:
    return quoted(value[:60]) if isinstance(value, str) else str(value)[:60]


def _deeper_than(value: object, levels: int) -> bool:
    inside = value.values() if is_object(value) else value if is_list(value) else None
    if inside is None:
        return False
    return levels == 0 or any(_deeper_than(item, levels - 1) for item in inside)
