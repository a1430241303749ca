"""The transitions of a worker and the restart rules."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT
from vllamad.core.lifecycle import (
    FOLLOWS,
    Ending,
    GiveUp,
    Retry,
    Rules,
    State,
    StayStopped,
    advance,
    decide_after_ending,
)

RULES = Rules(base=1.0, limit=60.0, max_failures=5)
CRASH = Ending(requested=False, reason="boom")


@pytest.mark.parametrize(("present", "wanted"), [(a, b) for a in State for b in FOLLOWS[a]])
def test_an_allowed_transition_happens(present: State, wanted: State) -> None:
    assert advance(present, wanted) is wanted


@pytest.mark.parametrize(
    ("present", "wanted"), [(a, b) for a in State for b in State if b not in FOLLOWS[a]]
)
def test_any_other_transition_is_a_bug(present: State, wanted: State) -> None:
    with pytest.raises(AssertionError, match="cannot go from"):
        advance(present, wanted)


def test_memory_is_never_free_before_the_group_is_empty() -> None:
    free = {State.STOPPED, State.BACKOFF, State.FAILED}
    leading = {present for present in State for wanted in FOLLOWS[present] if wanted in free}
    assert leading - free == {State.STOPPING}


def test_a_requested_stop_restarts_nothing() -> None:
    assert decide_after_ending([CRASH, Ending(requested=True)], RULES, jitter=1.0) == StayStopped()


def test_failures_in_a_row_double_the_delay_up_to_the_limit() -> None:
    rules = Rules(base=1.0, limit=5.0, max_failures=10)
    delays = [decide_after_ending([CRASH] * n, rules, jitter=1.0) for n in range(1, 6)]
    assert delays == [Retry(1.0), Retry(2.0), Retry(4.0), Retry(5.0), Retry(5.0)]


def test_jitter_spreads_the_delay() -> None:
    assert decide_after_ending([CRASH], RULES, jitter=1.5) == Retry(1.5)


def test_too_many_failures_in_a_row_give_up_with_the_last_reason() -> None:
    assert decide_after_ending([CRASH] * 5, RULES, jitter=1.0) == GiveUp("boom")


def test_a_deterministic_failure_gets_one_more_try() -> None:
    hopeless = Ending(requested=False, reason="no such architecture", deterministic=True)
    assert decide_after_ending([hopeless], RULES, jitter=1.0) == Retry(1.0)
    assert decide_after_ending([hopeless, hopeless], RULES, jitter=1.0) == GiveUp(
        "no such architecture"
    )


def test_a_long_ready_time_resets_the_failures() -> None:
    steady = Ending(requested=False, reason="boom", ready_for=3600.0)
    assert decide_after_ending([CRASH, CRASH, CRASH, CRASH, steady], RULES, jitter=1.0) == Retry(
        1.0
    )


def test_a_requested_stop_resets_the_failures() -> None:
    endings = [CRASH, CRASH, CRASH, CRASH, Ending(requested=True), CRASH]
    assert decide_after_ending(endings, RULES, jitter=1.0) == Retry(1.0)


def test_the_architecture_page_shows_the_diagram_drawn_from_the_table() -> None:
    lines = ["stateDiagram-v2", f"    [*] --> {State.STOPPED}"]
    for present in State:
        lines += [f"    {present} --> {state}" for state in State if state in FOLLOWS[present]]
    page = ROOT / "docs" / "architecture.md"
    assert "\n".join(lines) in page.read_text()
