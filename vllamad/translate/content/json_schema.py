"""Checks JSON schemas before the engine makes grammars of them: bad ones have crashed it.

Judges form and size only; the engine itself refuses what a grammar cannot express.
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
# The keys of schemas inside schemas; all others (enum, default, examples...) hold data.
_ONE = frozenset({
    "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
_MANY = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})

# Keys that Ollama ignores; only readers of the answer use them.
_IGNORED = frozenset({"contains", "maxContains", "minContains", "uniqueItems"})
_FORMATS = frozenset({
    "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
})  # fmt: skip

# JavaScript's syntax, with the nearest of Python's.
_JAVASCRIPT = ((re.compile(r"\(\?<(?=[A-Za-z_])"), "(?P<"), (re.compile(r"\\[pP]\{[^}]*\}"), "."))


def vet(schema: object, what: str = "format") -> None:
    """Refuse a schema that is too large, too deep or malformed.

    Raises BadInput with the path of the fault; `what` is the field that holds the schema.
    """
    vet_size(schema, what)
    for path, part in _schemas(schema, ""):
        if (problem := _problem(part)) is not None:
            raise BadInput(f"invalid {what}: {problem} at {path or 'the top'}")


def vet_size(schema: object, what: str) -> None:
    """Refuse a schema that is too large or deep; raises BadInput."""
    size = len(msgspec.json.encode(schema))
    if size > MAX_SIZE:
        raise BadInput(f"invalid {what}: the schema has {size} bytes, at most {MAX_SIZE}")
    if _deeper_than(schema, MAX_DEPTH):
        raise BadInput(f"invalid {what}: the schema is nested deeper than {MAX_DEPTH} levels")


def relaxed(schema: dict[str, object]) -> dict[str, object]:
    """Return the schema without keys that the engine refuses and Ollama ignores.

    By the standard a format without a grammar is an annotation; pydantic and zod write such
    formats, and `uniqueItems`. A list under `items` is `prefixItems` in newer drafts.
    """
    fields = {key: _relaxed(key, value) for key, value in schema.items() if key not in _IGNORED}
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


def _schemas(schema: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each schema in `schema`, itself included, with its path; skip true and false."""
    if not is_object(schema):
        return
    yield path, schema
    for key, value in schema.items():
        inside: list[tuple[str, object]] = []
        if key in _ONE and is_object(value):
            inside = [(key, value)]
        elif key in _MANY and is_list(value):
            inside = [(f"{key}[{i}]", item) for i, item in enumerate(value)]
        elif key in _NAMED and is_object(value):
            inside = [(f"{key}.{name}", item) for name, item in value.items()]
        for name, item in inside:
            yield from _schemas(item, f"{path}.{name}" if path else name)


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
            warnings.simplefilter("ignore")  # on syntax that a later Python may read differently
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
