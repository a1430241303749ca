"""The tree of errors: which HTTP status each kind has."""

from __future__ import annotations

import pytest

from vllamad.errors import KINDS, BadInput, ConfigError, EngineRefused, ServerBusy

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
    "engine-refused": 500,
    "not-allowed": 403,
    "unauthenticated": 401,
    "not-reachable": 500,
    "config": 500,
    "runtime": 500,
    "host": 500,
}


def test_every_kind_has_its_status() -> None:
    assert {kind: cls.status for kind, cls in KINDS.items()} == STATUS


@pytest.mark.parametrize("kind", KINDS.keys() - {"config", "engine-refused"})
def test_an_error_has_the_status_of_its_class(kind: str) -> None:
    assert KINDS[kind]("cannot do it").status == STATUS[kind]
    assert KINDS[kind]("cannot do it", status=418).status == 418


def test_an_error_may_bring_a_status_of_its_own() -> None:
    assert BadInput("too large", status=413).status == 413
    assert EngineRefused("busy", status=503).status == 503


def test_a_full_queue_says_so_in_ollamas_words() -> None:
    assert str(ServerBusy()) == (
        "server busy, please try again.  maximum pending requests exceeded"
    )


def test_a_faulty_configuration_says_all_that_is_wrong() -> None:
    error = ConfigError(("a.toml:1: x", "a.toml:2: y"))
    assert str(error) == "a.toml:1: x\na.toml:2: y"
