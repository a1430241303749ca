"""A property whose inputs are all refused fails; one that accepts an input passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput


def property_of(limit: int) -> None:
    @accepts_some
    @given(st.integers(0, 9))
    def check(number: int) -> None:
        with accepted_or_refused():
            if number >= limit:
                raise BadInput("too large")

    check()


def test_a_property_with_an_accepted_input_passes() -> None:
    assert property_of(5) is None


def test_a_property_that_refuses_everything_fails() -> None:
    with pytest.raises(AssertionError, match="every input was refused"):
        property_of(0)


def test_another_error_is_no_refusal() -> None:
    @accepts_some
    @given(st.integers(0, 9))
    def check(number: int) -> None:
        with accepted_or_refused():
            raise KeyError(number)

    with pytest.raises(KeyError):
        check()
