"""The states of a worker, which follows which, and what to do when a life ends.

Every transition lives in this file. It does not know what a process is, nor what time it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


FOLLOWS: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.READY, State.STOPPING}),
    State.READY: frozenset({State.DRAINING, State.STOPPING}),
    State.DRAINING: frozenset({State.STOPPING}),
    # Left only once the process group is empty: memory is free when nobody can hold it.
    State.STOPPING: frozenset({State.STOPPED, State.BACKOFF, State.FAILED}),
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED}),
    State.FAILED: frozenset({State.STARTING, State.STOPPED}),  # an operator, or the cool-down
}

# States in which a worker's memory is spoken for.
OCCUPYING = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.BACKOFF})


def advance(present: State, wanted: State) -> State:
    """Return `wanted` if `present` leads to it; anything else is a bug of ours."""
    if wanted not in FOLLOWS[present]:
        raise AssertionError(f"a worker cannot go from {present} to {wanted}")
    return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one life ended: `ready_for` is how long it served, 0 if it never did."""

    asked: bool
    reason: str = ""
    ready_for: float = 0.0
    deterministic: bool = False  # another try cannot end differently


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When to try again; durations in seconds."""

    base: float
    limit: float
    max_failures: int
    steady: float = 600.0  # having served this long wipes the slate


@dataclass(frozen=True, slots=True)
class StayStopped:
    """It was asked to stop."""


@dataclass(frozen=True, slots=True)
class Retry:
    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def decide_after_ending(
    endings: Sequence[Ending], rules: Rules, *, jitter: float
) -> StayStopped | Retry | GiveUp:
    """Say what follows the last of `endings`, given those before it (newest last).

    Failures double the delay up to a limit; `max_failures` in a row give up, two where the
    reason is one that another try cannot cure. `jitter` multiplies the delay, so that workers
    that died together do not come back together.
    """
    last = endings[-1]
    if last.asked:
        return StayStopped()
    failures = _failures_in_a_row(endings, rules)
    limit = min(2, rules.max_failures) if last.deterministic else rules.max_failures
    if failures >= limit:
        return GiveUp(last.reason)
    return Retry(min(rules.limit, rules.base * 2 ** max(0, failures - 1)) * jitter)


def _failures_in_a_row(endings: Sequence[Ending], rules: Rules) -> int:
    """Count from the newest back; a life that served for long ends the count, itself included."""
    count = 0
    for ending in reversed(endings):
        if ending.asked:
            break
        count += 1
        if ending.ready_for >= rules.steady:
            break
    return count
