"""A schema reaches the engine only in a form and size that cannot hurt it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.paths import MADE_SCHEMAS
from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.content.json_schema import MAX_PATTERN, relaxed, vet

# As pydantic 2.14 and zod 4.6 made them.
MADE = json.loads(MADE_SCHEMAS.read_text())


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        *MADE["pydantic"].values(),
        *MADE["zod"].values(),
        {},
        {"type": ["string", "null"]},
        {"type": "array", "items": [{"type": "string"}, True]},
        {"properties": {"type": {"type": "string"}, "pattern": {"type": "integer"}}},
        {"enum": [{"type": "nonsense", "pattern": "(((("}]},
        {"default": {"$ref": "http://elsewhere"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
        {"pattern": r"^(?<year>\d{4})-\p{L}+/$"},
        {"pattern": "(a+)+$"},
        {"pattern": "[[a]]"},
        {"pattern": "a" * MAX_PATTERN},
        nested(32),
        {"additionalProperties": False, "items": True},
    ],
)
def test_schemas_as_programs_make_them_pass(schema):
    vet(schema)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "strng"}, 'invalid format: unknown type "strng" at the top'),
        ({"type": [["string"]]}, "invalid format: unknown type ['string'] at the top"),
        ({"type": ["string", 1]}, "invalid format: unknown type 1 at the top"),
        (
            {"properties": {"a": {"items": {"type": "int"}}}},
            'invalid format: unknown type "int" at properties.a.items',
        ),
        (
            {"anyOf": [{"type": "string"}, {"pattern": "(((("}]},
            'invalid format: the pattern "((((" cannot be compiled (missing ), unterminated '
            "subpattern at position 3) at anyOf[1]",
        ),
        (
            {"patternProperties": {"[": {}}},
            'invalid format: the pattern "[" cannot be compiled (unterminated character set at '
            "position 0) at the top",
        ),
        ({"pattern": 1}, "invalid format: a pattern that is no text, 1, at the top"),
        (
            {"pattern": "a" * 513},
            "invalid format: a pattern of 513 characters, at most 512, at the top",
        ),
        (
            {"$defs": {"a": {"$ref": "http://e.example/s.json"}}},
            'invalid format: a reference that leads elsewhere, "http://e.example/s.json", at '
            "$defs.a",
        ),
        ({"$ref": 1}, "invalid format: a reference that leads elsewhere, 1, at the top"),
        (nested(33), "invalid format: the schema is nested deeper than 32 levels"),
        (
            {"description": "x" * 65536},
            "invalid format: the schema has 65554 bytes, at most 65536",
        ),
    ],
)
def test_a_refusal_names_the_place_and_the_reason(schema, text):
    with pytest.raises(BadInput) as refused:
        vet(schema)
    assert (refused.value.status, refused.value.message) == (400, text)


def test_what_the_engine_refuses_and_ollama_never_heeded_is_left_out():
    schema: dict[str, Any] = {
        "$defs": {"a": {"format": "password", "default": {"format": "password"}}},
        "properties": {
            "format": {"type": "string", "format": "uuid"},
            "items": {"type": "array", "items": {"format": "binary"}, "uniqueItems": True},
            "pair": {"items": [{"format": "color"}, True], "additionalItems": {"contains": {}}},
            "open": {"items": []},
            "any": {"anyOf": [{"format": [1]}, {"enum": [{"uniqueItems": True}]}]},
            "free": True,
        },
    }
    assert relaxed(schema) == {
        "$defs": {"a": {"default": {"format": "password"}}},
        "properties": {
            "format": {"type": "string", "format": "uuid"},
            "items": {"type": "array", "items": {}},
            "pair": {"prefixItems": [{}, True], "items": {}},
            "open": {"prefixItems": []},
            "any": {"anyOf": [{}, {"enum": [{"uniqueItems": True}]}]},
            "free": True,
        },
    }


@pytest.mark.parametrize("schema", [*MADE["pydantic"].values(), *MADE["zod"].values()])
def test_schemas_as_programs_make_them_are_left_as_they_are(schema):
    assert relaxed(schema) == schema


KEYWORDS = (
    "type", "properties", "items", "format", "pattern", "$ref", "anyOf", "additionalItems",
    "enum", "uniqueItems",
)  # fmt: skip
KEYS = st.sampled_from(KEYWORDS) | st.text()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["string", "#", "["]),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@accepts_some
@example(schema={"type": "object"})
@settings(max_examples=50)  # each is a document of its own
@given(st.dictionaries(KEYS, JSON_VALUES))
def test_nothing_breaks_the_judge(schema):
    with accepted_or_refused():
        vet(schema)
        vet(relaxed(schema))


def test_what_the_schema_is_for_is_named():
    with pytest.raises(BadInput, match=r"^invalid response_format: "):
        vet({"type": "x"}, "response_format")
