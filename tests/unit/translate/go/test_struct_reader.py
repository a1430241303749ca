"""Bodies are read alike by msgspec and by Go's rules, and each annotated field is read."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from vllamad.errors import BadInput
from vllamad.translate.content.images import Image
from vllamad.translate.go import json_decoder
from vllamad.translate.go.struct_reader import Int, RequestReader
from vllamad.translate.ollama import embeddings, manage_requests, request

READERS: dict[str, RequestReader[Any]] = {
    reader._struct.__name__: reader
    for module in (request, embeddings, manage_requests)
    for reader in vars(module).values()
    if isinstance(reader, RequestReader)
}


def structs_of(annotation: object) -> set[type[msgspec.Struct]]:
    """All structs that an annotation names, with those of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        inner = (structs_of(hint) for hint in get_type_hints(annotation).values())
        return {annotation}.union(*inner)
    found: set[type[msgspec.Struct]] = set()
    return found.union(*map(structs_of, get_args(annotation)))


STRUCTS: set[type[msgspec.Struct]] = set().union(
    *(structs_of(reader._struct) for reader in READERS.values())
)


def spelled(read: msgspec.Struct) -> bytes:
    """A request as JSON, which tells 1, 1.0 and true apart."""

    def plain(value: object) -> object:
        return [value.media_type, value.data] if isinstance(value, Image) else repr(value)

    return msgspec.json.encode(read, enc_hook=plain)


def outcome(read: Any, body: bytes) -> object:
    """The result of reading a body: the request, or the text of its refusal."""
    try:
        return spelled(read(body))
    except BadInput as error:
        return error.message


def is_read_by_msgspec(reader: RequestReader[Any], body: bytes) -> bool:
    try:
        reader._decoder.decode(body)
    except (msgspec.DecodeError, BadInput, RecursionError):
        return False
    return json_decoder.is_within_limits(body)


# Values that fit some field, and values on which two JSON decoders may differ.
SCALARS = st.sampled_from([
    "null", "true", "false", "0", "1", "-0", "-0.0", "1.0", "1e2", "1E-400", "1e400", "0.1", "-1",
    "5e-324", "1.7976931348623157e308", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809",
    "1" * 1000, "1" * 1001, "0." + "1" * 998, "0." + "1" * 999, "1e" + "0" * 1000 + "1",
    '""', '"a"', '"User"', '"user"', '"ÉTÉ"', '"high"', '"5m"', '"-1s"', '"json"', '"aGk="',
    '"aGk"', r'"\ud83d\ude00"', r'"\ud800"', r'"\udc00\ud800"', r'"\u0000\/\u00e9"', r'"\x"',
    '"\x01"', '"\x7f"', "01", "1.", ".5", "+1", "NaN", "-Infinity", "tru", "{", "[", '"',
    "[" * 90 + "]" * 90, "[" * 127 + "]" * 127, "[" * 128 + "]" * 128,
    '{"a":' * 130 + "1" + "}" * 130,
])  # fmt: skip
NAMES = sorted(
    {field.encode_name for struct in STRUCTS for field in msgspec.structs.fields(struct)}
)
KEYS = st.sampled_from([*NAMES, "Model", "MESSAGES", "a", r"\u006dodel", "type"])


def braced(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}": {item}' for key, item in pairs) + "}"


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda found: f"[{','.join(found)}]")


def objects(keys: st.SearchStrategy[str], items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(keys, items), max_size=4)
    return pairs.map(braced)


VALUES = st.recursive(SCALARS, lambda inner: listed(inner) | objects(KEYS, inner), max_leaves=8)


def of(struct: type[msgspec.Struct]) -> st.SearchStrategy[str]:
    """Objects of a struct in which most fields fit."""
    hints = get_type_hints(struct)
    fitting = st.one_of(
        *(
            st.tuples(st.just(field.encode_name), of_type(hints[field.name]) | VALUES)
            for field in msgspec.structs.fields(struct)
        )
    )
    found = st.lists(fitting | st.tuples(KEYS, VALUES), max_size=5)
    return found.map(braced)


def of_type(annotation: Any) -> st.SearchStrategy[str]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return of(annotation)
    match get_args(annotation):
        case (item,):
            return listed(of_type(item))
        case (key, item) if key is str:
            return objects(KEYS, of_type(item))
        case _:
            pass
    fitting = {str: '"a"', bool: "true", int: "3", Image: '"aGk="'}
    return st.just(fitting[annotation]) if annotation in fitting else SCALARS


@pytest.mark.parametrize("name", READERS)
def test_msgspec_and_gos_rules_read_the_same(name: str) -> None:
    reader = READERS[name]
    seen: Counter[str] = Counter()

    @settings(deadline=None)
    @given(of(reader._struct) | VALUES, st.sampled_from(["", " ", "x", "\n{}"]))
    def reads_the_same(text: str, after: str) -> None:
        body = (text + after).encode()
        by_rules = outcome(reader.read_by_gos_rules, body)
        assert outcome(reader.read, body) == by_rules
        seen["by msgspec"] += is_read_by_msgspec(reader, body)
        seen["accepted"] += isinstance(by_rules, bytes)
        seen["refused"] += isinstance(by_rules, str)

    reads_the_same()
    assert 0 < seen["by msgspec"] < seen["accepted"]
    assert seen["refused"]


@pytest.mark.parametrize(
    "body", [b'{"model":"\xff"}', b'{"options":{"\xff":1}}', b"\xef\xbb\xbf{}"]
)
def test_bytes_that_are_no_utf8_are_read_the_same(body: bytes) -> None:
    reader = READERS["ChatRequest"]
    assert outcome(reader.read, body) == outcome(reader.read_by_gos_rules, body)


@pytest.mark.parametrize(
    "value",
    [
        "[" * 4000 + "]" * 4000,
        "[" + "1," * json_decoder.MAX_ELEMENTS + "1]",
        "1" * (json_decoder.MAX_NUMBER + 1),
        '"' + "\\n" * (json_decoder.MAX_ESCAPES + 1) + '"',
    ],
    ids=["depth", "elements", "number", "escapes"],
)
def test_the_limits_of_a_body_hold_for_both(value: str) -> None:
    reader, body = READERS["ChatRequest"], b'{"format":%b}' % value.encode()
    refusal = outcome(reader.read, body)
    assert isinstance(refusal, str)
    assert refusal == outcome(reader.read_by_gos_rules, body)


def test_every_request_is_looked_at() -> None:
    assert len(READERS) == 10
    assert len(STRUCTS) == 14


@pytest.mark.parametrize("name", sorted(struct.__name__ for struct in STRUCTS))
def test_every_field_of_a_struct_is_read(name: str) -> None:
    (struct,) = (struct for struct in STRUCTS if struct.__name__ == name)
    reader = RequestReader(struct)
    hints = get_type_hints(struct)
    kept = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert kept
    for encoded, field in kept.items():
        for key in (encoded, encoded.upper()):
            if hints[field.name] is object:  # takes any value
                read = reader.read(json.dumps({key: [7]}).encode())
                assert getattr(read, field.name) == [7]
            else:
                with pytest.raises(BadInput):
                    reader.read(json.dumps({key: [[{"of": "no such type"}]]}).encode())


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Takes unknown keys, and so would take keys in another case for unknown."""

    a: str = ""


class Unbounded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    a: list[str] = []


class BarePython(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    a: int = 0


@pytest.mark.parametrize("struct", [Plain, Unbounded, BarePython])
def test_a_struct_that_cannot_be_read_as_go_does_makes_no_reader(
    struct: type[msgspec.Struct],
) -> None:
    with pytest.raises(TypeError):
        RequestReader(struct)


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    GO_TYPE: ClassVar[str] = "api.Innermost"

    number: Int = 0


class Outer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    inner: Annotated[list[Inner], Meta(max_length=2)] = []
    words: dict[str, str] = {}
    tags: Annotated[list[str], Meta(max_length=2)] = []


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"inner": {}}, "object into Go struct field Outer.inner of type []api.Innermost"),
        ({"inner": [1]}, "number into Go struct field Outer.inner of type api.Innermost"),
        ({"inner": [{"number": 1.5}]},
         "number 1.5 into Go struct field Outer.inner.number of type int"),
        ({"words": []}, "array into Go struct field Outer.words of type map[string]string"),
        ({"tags": ""}, "string into Go struct field Outer.tags of type []string"),
        ([], "array into Go value of type api.Outer"),
    ],
)  # fmt: skip
def test_the_types_in_a_refusal_follow_from_the_annotations(body: object, refusal: str) -> None:
    with pytest.raises(BadInput, match="cannot unmarshal") as refused:
        RequestReader(Outer).read(json.dumps(body).encode())
    assert refused.value.message == f"json: cannot unmarshal {refusal}"
