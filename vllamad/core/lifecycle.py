"""The states of a worker, the transitions between them, and the restart rules.

Every transition lives in this file. It knows no process and no clock.
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
    # Left only when the process group is empty: no process can hold memory then.
    State.STOPPING: frozenset({State.STOPPED, State.BACKOFF, State.FAILED}),
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED}),
    State.FAILED: frozenset({State.STARTING, State.STOPPED}),  # by an operator or a request
}

# States in which a worker's memory counts as used.
OCCUPYING = frozenset({State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.BACKOFF})


def advance(present: State, next_state: State) -> State:
    """Return `next_state` if `present` leads to it; any other transition is a bug."""
    if next_state not in FOLLOWS[present]:
        raise AssertionError(f"a worker cannot go from {present} to {next_state}")
    return next_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of one engine process: `ready_for` is the seconds it was ready."""

    requested: bool  # a stop was requested
    reason: str = ""
    ready_for: float = 0.0
    deterministic: bool = False  # another start ends the same way


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The limits of restarts; durations in seconds."""

    base: float
    limit: float
    max_failures: int
    steady: float = 600.0  # a process that was ready this long resets the count


@dataclass(frozen=True, slots=True)
class StayStopped:
    """The stop was requested: no restart."""


@dataclass(frozen=True, slots=True)
class Retry:
    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def decide_after_ending(
    endings: Sequence[Ending], rules: Rules, *, jitter: float
) -> StayStopped | Retry | GiveUp:
    """Decide what follows the last of `endings`, which are in order of time.

    Each failure doubles the delay up to a limit. After `max_failures` in a row the worker gives up,
    after two where the reason is deterministic. `jitter` multiplies the delay, so that workers that
    died together do not restart together.
    """
    last = endings[-1]
    if last.requested:
        return StayStopped()
    failures = _failures_in_a_row(endings, rules)
    limit = min(2, rules.max_failures) if last.deterministic else rules.max_failures
    if failures >= limit:
        return GiveUp(last.reason)
    return Retry(min(rules.limit, rules.base * 2 ** max(0, failures - 1)) * jitter)


def _failures_in_a_row(endings: Sequence[Ending], rules: Rules) -> int:
    """Count back from the newest; a process that was ready for long is the last one counted."""
    count = 0
    for ending in reversed(endings):
        if ending.requested:
            break
        count += 1
        if ending.ready_for >= rules.steady:
            break
    return count
