"""The first to end decides, and nobody is left running."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from vllamad.host.tasks import first_of


async def after(seconds: float, result: str) -> str:
    await trio.sleep(seconds)
    return result


async def fail_after(seconds: float, problem: Exception) -> str:
    await trio.sleep(seconds)
    raise problem


async def test_the_first_result_is_returned_and_the_rest_cancelled(
    autojump_clock: MockClock,
) -> None:
    result = await first_of(partial(after, 9, "slow"), partial(after, 1, "quick"))
    assert (result, trio.current_time()) == ("quick", 1)


async def test_the_first_failure_is_raised_bare(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="no"):
        await first_of(partial(after, 9, "slow"), partial(fail_after, 1, ValueError("no")))
    assert trio.current_time() == 1


async def test_a_failure_while_the_rest_is_cancelled_is_not_swallowed() -> None:
    async def fail_when_cancelled() -> str:
        try:
            return await after(9, "slow")
        finally:
            raise KeyError("late")

    with pytest.RaisesGroup(KeyError):
        await first_of(partial(after, 0, "quick"), fail_when_cancelled)


async def test_a_cancel_from_outside_goes_through(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await first_of(partial(after, 9, "a"), partial(after, 9, "b"))
    assert scope.cancelled_caught
