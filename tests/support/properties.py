"""Properties that an input may meet by being refused, and that fail when every input is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec

from vllamad.errors import BadInput

P = ParamSpec("P")
_accepted: ContextVar[list[bool]] = ContextVar("accepted")


@contextmanager
def accepted_or_refused(kind: type[Exception] = BadInput) -> Generator[None]:
    """The block runs to its end, which counts as accepted, or raises `kind`."""
    try:
        yield
    except kind:
        return
    _accepted.get().append(True)


def accepts_some(test: Callable[P, None]) -> Callable[P, None]:
    """Put above `@given`: the test fails unless an input was accepted."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        token = _accepted.set([])
        try:
            test(*args, **kwargs)
            assert _accepted.get(), "every input was refused: add one that is valid"
        finally:
            _accepted.reset(token)

    return run
