"""Each report of the field is shown by a test."""

from __future__ import annotations

from tests.support.cases import CASES, places_of_cases


def test_every_case_is_shown_by_a_test() -> None:
    tests = places_of_cases()
    assert tests.keys() == CASES.keys()
    assert [name for name, places in tests.items() if not places] == []
