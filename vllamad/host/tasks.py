"""The trio idioms we use more than once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def first_of(*fns: Callable[[], Awaitable[T]]) -> T:
    """Run all, return what the first to end returns (or raise what it raises), cancel the rest."""
    results: list[T] = []
    problems: list[Exception] = []

    async def run(fn: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await fn()
        except Exception as problem:
            if results or problems:
                raise  # too late to decide, but not to be heard
            problems.append(problem)
        else:
            if not problems:
                results.append(result)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for fn in fns[1:]:
            nursery.start_soon(run, fn)
        await run(fns[0])  # a task less
    if problems:
        raise problems[0]
    return results[0]
