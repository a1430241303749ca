"""Durations are read as Go reads them, and refused in Go's words."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.go.duration import parse_duration, parse_keep_alive


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("-0", 0), ("5m", 300), ("+5m", 300), ("-1m", -60), ("1h30m", 5400),
        ("1.5h", 5400), (".5s", 0.5), ("5.s", 5), ("300ms", 0.3), ("1us", 1e-6), ("1µs", 1e-6),
        ("1μs", 1e-6), ("1ns", 1e-9), ("5m0s", 300), ("1h30m0s", 5400), ("24h", 86400),
        ("0s", 0), ("1.0000000000000000000000000000001s", 1), ("00000000000000000000001s", 1),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_go_reads_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("abc", 'time: invalid duration "abc"'),
        (".s", 'time: invalid duration ".s"'),
        (" 5m", 'time: invalid duration " 5m"'),
        ("--5m", 'time: invalid duration "--5m"'),
        ("10000000h", 'time: invalid duration "10000000h"'),
        ("9223372036s1000000000ns", 'time: invalid duration "9223372036s1000000000ns"'),
        ("99999999999999999999x", 'time: invalid duration "99999999999999999999x"'),
        ("9999999999999999999x", 'time: invalid duration "9999999999999999999x"'),
        ("5", 'time: missing unit in duration "5"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1H", 'time: unknown unit "H" in duration "1H"'),
        ("1h-1m", 'time: unknown unit "h-" in duration "1h-1m"'),
        ("1m 30s", 'time: unknown unit "m " in duration "1m 30s"'),
        ("1é", 'time: unknown unit "\\xc3\\xa9" in duration "1\\xc3\\xa9"'),
        ('1"\\\n', 'time: unknown unit "\\"\\\\\\x0a" in duration "1\\"\\\\\\x0a"'),
    ],
)
def test_a_bad_duration_is_refused_with_gos_words(text, message):
    with pytest.raises(BadInput) as refused:
        parse_duration(text)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0), (0.0, 0), (42, 42), (42.5, 42.5), (1200.0, 1200), (-1, inf),
        (-0.5, inf), ("42m", 2520), ("-1m", inf), ("0", 0), (1e300, inf), (9223372036.9, inf),
    ],
)  # fmt: skip
def test_keep_alive_is_seconds_or_for_ever(value, seconds):
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        ("5", 'time: missing unit in duration "5"'),
    ],
)
def test_a_bad_keep_alive_is_refused_with_ollamas_words(value, message):
    with pytest.raises(BadInput) as refused:
        parse_keep_alive(value)
    assert refused.value.message == message


@pytest.mark.parametrize("text", ["0s", "1h", "é"])
def test_a_duration_without_end_is_refused_at_once(text):
    with pytest.raises(BadInput) as refused:
        parse_duration(text * 1_000_000)
    assert len(refused.value.message) < 10_000


@accepts_some
@example(text="1m30s")
@given(st.text())
def test_no_text_raises_anything_but_bad_input(text):
    with accepted_or_refused():
        assert isinstance(parse_duration(text), float)


@given(st.integers(0, 2_000_000), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_what_go_prints_is_read_back(hours, minutes, seconds, millis):
    text = f"{hours}h{minutes}m{seconds}.{millis:03d}s"
    assert parse_duration(text) == pytest.approx(
        hours * 3600 + minutes * 60 + seconds + millis / 1000
    )
