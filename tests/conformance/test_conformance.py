"""Every client does all it can with vllamad: the rows of `make conformance` as tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.conformance.roster import CLIENTS, Client
from tests.conformance.stage import absent, run, serving
from tests.conformance.table import problems
from tests.support.daemon import Daemon

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    prepared = Path(os.environ.get("VLLAMAD_HOME") or Path.home() / ".cache" / "vllamad-dev")
    if not (prepared / "state" / "runtimes" / "current").exists():
        unavailable(f"no engine runtime under {prepared}: run `make prepare`")
    with serving(prepared, tmp_path_factory.mktemp("conformance")) as one:
        yield one


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_can_do_all_it_has(client: Client, real: Daemon, tmp_path: Path) -> None:
    if reason := absent(client):
        unavailable(reason)
    assert problems({client: run(client, real, tmp_path)}) == []


def unavailable(reason: str) -> None:
    """A gap that is fine on a bare machine, and never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
