"""Sorts of value: what they take, what they refuse, and that what is written reads back."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.config import values


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(30, 30.0), (1.5, 1.5), ("5m", 300.0), ("1h30m", 5400.0), ("forever", inf), (-1, inf),
     ("-1s", inf), (0, 0.0), ("0", 0.0)],
)  # fmt: skip
def test_a_keep_alive_is_seconds_or_a_go_duration_and_a_negative_one_never_ends(value, seconds):
    assert values.duration_kind(forever=True, negative=True).check(value) == seconds


@pytest.mark.parametrize(
    "value", ["5", "1d", "", "soon", True, nan, inf, 10**400, [1], {}, -1, "-1s"]
)
def test_a_duration_refuses_what_is_none(value):
    with pytest.raises(ValueError, match=r"^must be a duration such as 30, .*, not "):
        values.duration_kind().check(value)


def test_a_wait_of_no_time_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        values.duration_kind(zero=False, forever=True).check(0)


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("10MB", 10_000_000), ("1.5KiB", 1536),
     ("7", 7), ("7B", 7)],
)  # fmt: skip
def test_a_size_is_bytes_or_a_number_with_a_unit(value, number):
    assert values.size_kind().check(value) == number


@pytest.mark.parametrize("value", ["1 gib", "GiB", "-1", -1, True, 1.5, "1e9", "9" * 40, 1 << 60])
def test_a_size_refuses_what_is_none(value):
    with pytest.raises(ValueError, match="must be a size such as"):
        values.size_kind().check(value)


def test_a_size_names_its_least():
    with pytest.raises(ValueError, match="of at least 64KiB"):
        values.size_kind(1 << 16).check(5)


@pytest.mark.parametrize("value", [True, 0, 65, "1", 1.0])
def test_a_whole_number_keeps_its_limits_and_is_neither_text_nor_truth(value):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 64"):
        values.whole_kind(1, 64).check(value)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("True", True), ("on", True), ("f", False), ("no", False)]
)
def test_truth_has_many_texts(text, value):
    assert values.boolean_kind().from_text(text) is value


def test_no_other_text_is_true_or_false():
    kind = values.boolean_kind()
    with pytest.raises(ValueError, match='must be true or false, not "maybe"'):
        kind.check(kind.from_text("maybe"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("false", False), ("4", 4), ("0.5", 0.5), ("auto", "auto"), ("1e3", "1e3")],
)
def test_a_flag_of_the_engine_is_guessed_from_its_text(text, value):
    kind = values.scalar_kind()
    assert kind.check(kind.from_text(text)) == value


@pytest.mark.parametrize(
    "value", ["*", "https://a.example", "http://*.example", "chrome-extension://*", "app://*"]
)
def test_an_origin_follows_ollamas_rules(value):
    assert values.origin_kind().check(value) == value


@pytest.mark.parametrize("value", ["a.example", "ftp://a", "https://*.*", "https://", ""])
def test_an_origin_of_another_form_is_refused(value):
    with pytest.raises(ValueError, match="must be a web origin"):
        values.origin_kind().check(value)


def test_a_list_from_text_is_cut_at_commas():
    kind = values.list_kind(values.text_kind())
    assert kind.check(kind.from_text("a, b,,c ")) == ("a", "b", "c")


def test_a_long_value_is_cut_short_in_the_message():
    with pytest.raises(ValueError, match=r"^.{50,130}\.\.\.$"):
        values.choice_kind("a", "b").check("x" * 10_000)


@pytest.mark.parametrize("value", [1.5, -0.1, True, "half"])
def test_a_share_is_a_number_from_0_to_1(value):
    with pytest.raises(ValueError, match="must be a number from 0 to 1, not"):
        values.share_kind().check(value)


@pytest.mark.parametrize("value", [5, "a b", "a/b/c/d e"])
def test_a_model_name_must_be_one(value):
    with pytest.raises(ValueError, match="must be a model name"):
        values.model_name_kind().check(value)


def test_an_address_must_be_a_text():
    with pytest.raises(ValueError, match="must be an address such as"):
        values.address_kind().check(11434)


@given(st.floats(0, 1e9).map(lambda seconds: round(seconds, 6)) | st.just(inf))
def test_a_duration_as_written_reads_back(seconds):
    kind = values.duration_kind(forever=True)
    assert kind.check(kind.spell(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (90.0, "1m30s"),
        (3600.0, "1h"),
        (0.25, "0.25s"),
        (86400.0, "24h"),
        (1e-6, "0.000001s"),
    ],
)
def test_a_duration_is_written_as_people_write_it(seconds, text):
    assert values.spell_duration(seconds) == text


@given(st.integers(0, (1 << 53) - 1))
def test_a_size_as_written_reads_back(number):
    kind = values.size_kind()
    assert kind.check(kind.spell(number)) == number
