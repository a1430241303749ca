"""A request body is read as Go reads it; all other bytes are refused with 400."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.go.json_decoder import MAX_ELEMENTS, decode, quoted, spelled

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


def refusal_of(body: bytes) -> str:
    with pytest.raises(BadInput) as refused:
        decode(body)
    return refused.value.message


@given(JSON)
def test_json_is_read_as_written(value):
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


@accepts_some
@example(body=b'{"a": 1}')
@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 5000)
@example(b'"\\ud800"')
@example(b"\xff\xfe")
def test_no_bytes_raise_anything_but_bad_input(body):
    with accepted_or_refused():
        msgspec.json.encode(decode(body))  # and what comes out can be sent on


@accepts_some
@example(text='{"a": 1}')
@given(st.text(alphabet='[]{}",:\\u0d8tfn1-. '))
def test_no_near_json_raises_anything_but_bad_input(text):
    with accepted_or_refused():
        msgspec.json.encode(decode(text.encode()))


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_an_empty_body_is_missing(body):
    assert refusal_of(body) == "missing request body"


@pytest.mark.parametrize(
    "body",
    ["{", "[1,", '"abc', '"ab\\', '"\\u12', '"\\ud83d', "tru", "nul", "-", '{"a"', '{"a":',
     '{"a":1', '{"a":1,', "[" + "[]," * 200],
)  # fmt: skip
def test_a_body_that_stops_early_is_an_unexpected_eof(body):
    assert refusal_of(body.encode()) == "unexpected EOF"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("hello", "invalid character 'h' looking for beginning of value"),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        ("{'a'}", r"invalid character '\'' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('[1 "x"]', "invalid character '\"' after a value"),
        ('{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"a":Infinity}', "invalid character 'I' looking for beginning of value"),
        ('{"a":-Infinity}', "invalid character 'I' in numeric literal"),
        ('"\n"', "invalid character '\\n' in string literal"),
        ('"\\u1g2z"', "invalid character 'u' in \\u hexadecimal character escape"),
        ("\ufeff{}", "invalid character '\\ufeff' looking for beginning of value"),
        ("1e999", "json: cannot unmarshal number 1e999 into Go value of type float64"),
    ],
)
def test_a_syntax_error_names_the_character(body, message):
    assert refusal_of(body.encode()) == message


def test_what_follows_the_first_value_is_ignored():
    assert decode(b' {"a":1} junk [[[' + b"[" * 500) == {"a": 1}


def test_invalid_utf8_and_lone_surrogates_are_replaced():
    body = b'{"\\ud800":["\xff", "\\ud83d\\ude00 \\udfff", 1]}'
    assert decode(body) == {"\ufffd": ["\ufffd", "😀 \ufffd", 1]}


def test_a_whole_number_beyond_64_bits_becomes_a_float():
    assert decode(b"[18446744073709551615, 18446744073709551616]") == [
        2**64 - 1,
        1.8446744073709552e19,
    ]
    assert isinstance(decode(b"-9223372036854775809"), float)


def test_nesting_is_limited():
    assert decode(b"[" * 128 + b"]" * 128 + b" [") == json.loads("[" * 128 + "]" * 128)
    assert refusal_of(b"[" * 129 + b"]" * 129) == "cannot read JSON nested deeper than 128 levels"


def test_many_shallow_values_are_no_deep_nesting():
    assert decode(b"[" + b"[]," * 200 + b"[]]") == [[]] * 201


def test_brackets_inside_strings_are_no_nesting():
    text = "[{" * 500 + '"\\'
    assert decode(json.dumps([text]).encode()) == [text]


@pytest.mark.parametrize("number", [b"9" * 20_000_000, b"0." + b"1" * 20_000_000])
def test_a_number_without_end_is_refused_at_once(number):
    began = time.process_time()
    assert refusal_of(number).startswith("json: cannot unmarshal number")
    assert time.process_time() - began < 0.5


def test_the_number_of_escapes_is_limited():
    assert decode(b'"' + b"\\u4e2d" * 1_000_000 + b'"') == "中" * 1_000_000
    assert "escapes" in refusal_of(b'"' + b"\\n" * 2_000_001 + b'"')


@pytest.mark.parametrize("element", [b"1,", b"[],", b'"",'])
def test_the_number_of_elements_is_limited(element):
    body = b"[" + element * (MAX_ELEMENTS + 1)
    assert refusal_of(body) == "cannot read JSON with more than 200000 elements"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("é", '"é"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("\n\t\x01\x7f", '"\\n\\t\\x01\\x7f"'),
        ("\u2028", '"\\u2028"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_quoting_is_gos(text, printed):
    assert quoted(text) == printed


def test_what_a_client_said_is_not_repeated_without_end():
    assert len(quoted("\x01" * 10_000_000)) < 10_000
    assert quoted("x" * 2001) == '"' + "x" * 2000 + '…"'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.7, "0.7"),
        (4096, "4096"),
        (4096.0, "4096"),
        (-1, "-1"),
        (999_999, "999999"),
        (1_000_000, "1e+06"),
        (1_048_576, "1.048576e+06"),
        (-2_500_000.5, "-2.5000005e+06"),
        (1e22, "1e+22"),
        (1.5e300, "1.5e+300"),
        (1e-05, "1e-05"),
        (0.0001, "0.0001"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_spelled_as_go_prints_them(number, text):
    assert spelled(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_spelled_number_is_the_number(number):
    assert float(spelled(number)) == number
