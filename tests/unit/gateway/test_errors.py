"""Which HTTP status each refusal gets, and what a client is told of it."""

from __future__ import annotations

import pytest

from vllamad import errors
from vllamad.errors import (
    BadInput,
    EngineRefused,
    HostProblem,
    LoadFailed,
    RuntimeProblem,
    ServerBusy,
    VllamadError,
)
from vllamad.gateway.errors import public_message, status_of

STATUS = {
    "error": 500,
    "bad-input": 400,
    "model-not-found": 404,
    "not-supported": 400,
    "busy": 503,
    "unavailable": 503,
    "does-not-fit": 500,
    "load-failed": 500,
    "worker-lost": 500,
    "not-allowed": 403,
    "unauthenticated": 401,
    "not-reachable": 500,
    "runtime": 500,
    "host": 500,
}


def kinds() -> list[type[VllamadError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [
        cls
        for cls in found
        if issubclass(cls, VllamadError) and cls.kind not in ("config", "engine-refused")
    ]


@pytest.mark.parametrize("cls", kinds(), ids=lambda cls: cls.kind)
def test_every_kind_has_its_status(cls: type[VllamadError]) -> None:
    assert status_of(cls("cannot do it")) == STATUS[cls.kind]


def test_a_bad_input_may_bring_a_status_of_its_own() -> None:
    assert status_of(BadInput("too large", status=413)) == 413


def test_the_engines_own_status_is_passed_on() -> None:
    assert status_of(EngineRefused("busy", status=503)) == 503


def test_a_full_queue_says_so_in_ollamas_words() -> None:
    assert status_of(ServerBusy()) == 503
    assert str(ServerBusy()) == (
        "server busy, please try again.  maximum pending requests exceeded"
    )


@pytest.mark.parametrize("kind", [HostProblem, LoadFailed, RuntimeProblem])
def test_where_our_files_are_stays_with_us(kind: type[VllamadError]) -> None:
    error = kind("cannot load a: no such file: /var/lib/vllamad/x.bin at 0x7f00")
    assert public_message(error) == "cannot load a: no such file: … at …"


def test_what_a_client_said_is_repeated_as_it_was_but_not_without_end() -> None:
    assert public_message(BadInput("cannot use /a/b/c")) == "cannot use /a/b/c"
    assert len(public_message(BadInput("x" * 10_000))) == 2001
