"""Moments are printed as Go prints them."""

from __future__ import annotations

from datetime import datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.translate.go.timestamps import Stamps, expires_at, rfc3339

SECOND = 10**9
NOON = 1787338102  # 2026-08-21T18:48:22Z


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "2026-08-21T18:48:22Z"),
        (120_000_000, "2026-08-21T18:48:22.12Z"),
        (100, "2026-08-21T18:48:22.0000001Z"),
        (123_456_789, "2026-08-21T18:48:22.123456789Z"),
    ],
)
def test_trailing_zeros_are_trimmed(nanoseconds, text):
    assert rfc3339(NOON * SECOND + nanoseconds) == text


def test_a_loaded_model_expires_so_many_seconds_from_now():
    assert expires_at(NOON * SECOND, 90.5) == "2026-08-21T18:49:52.5Z"


@pytest.mark.parametrize("forever", [None, inf])
def test_for_ever_is_a_date_292_years_ahead(forever):
    assert expires_at(NOON * SECOND, forever).startswith("2318-")


def test_a_date_beyond_the_calendar_is_its_last_second():
    assert rfc3339(10**30).startswith("9999-12-31T23:59:59")


@given(st.lists(st.integers(0, 4 * 10**18), min_size=1))
def test_stamps_of_a_stream_are_the_same_moments_to_the_microsecond(moments):
    stamps = Stamps()
    assert [stamps(moment).decode() for moment in moments] == [
        rfc3339(moment // 1000 * 1000) for moment in moments
    ]


@given(st.integers(0, 4 * 10**18))
def test_every_stamp_can_be_read_back(moment):
    read = datetime.fromisoformat(Stamps()(moment).decode())
    assert read.utcoffset() is not None
    assert int(read.timestamp()) == pytest.approx(moment // SECOND, abs=1)
