"""A test can fail: its assertions are not all in a loop that may be empty, or in one branch."""

from __future__ import annotations

import pytest

from tests.support.assertions import unsure
from tests.support.paths import ROOT


def test_each_test_has_an_assertion_that_is_always_reached() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(files) > 200
    found = {str(path.relative_to(ROOT)): unsure(path.read_text()) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("body", "sure"),
    [
        ("assert x", True),
        ("for a in found:\n  assert a", False),
        ("for a in (1, 2):\n  assert a", True),
        ("for a in (*found,):\n  assert a", False),
        ("for a in range(3):\n  assert a", True),
        ("for a, b in zip((1, 2), found, strict=True):\n  assert a", True),
        ("for a in 'ab':\n  assert a", True),
        ("for a in found:\n  assert a\nassert found", True),
        ("while x:\n  assert x", False),
        ("if x:\n  assert y", False),
        ("if x:\n  assert y\nelse:\n  assert z", True),
        ("with pytest.raises(KeyError):\n  x()", True),
        ("with one() as x:\n  assert x", True),
        ("try:\n  assert x\nfinally:\n  y()", True),
        ("match x:\n  case 1:\n    assert x\n  case _:\n    y()", False),
        ("match x:\n  case 1:\n    assert x\n  case _:\n    assert y", True),
        ("x()", True),  # a call that raises is its own assertion
    ],
)
def test_what_is_always_reached_is_told_from_what_may_not_be(body: str, sure: bool) -> None:
    lines = "".join(f"  {line}\n" for line in body.splitlines())
    assert unsure(f"def test_it():\n{lines}") == ([] if sure else ["test_it"])
