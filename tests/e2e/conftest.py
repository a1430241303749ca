"""A daemon on the real engine: the runtime and the model that `make prepare` made."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.real_engine import MODEL
from vllamad.models.installed import InstalledModels


@pytest.fixture(scope="session")
def prepared() -> Path:
    """The tree with the runtime and the model; skips where there is none, fails in CI."""
    home = Path(os.environ.get("VLLAMAD_HOME") or Path.home() / ".cache" / "vllamad-dev")
    if not (home / "state" / "runtimes" / "current").exists():
        reason = f"no engine runtime under {home}: run `make prepare`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return home


@pytest.fixture(scope="session")
def checkpoint(prepared: Path) -> Path:
    """The folder of the real model."""
    installed = InstalledModels(prepared / "state" / "models", {}).find(MODEL)
    assert installed is not None, "run `make prepare`"
    return installed.folder


@pytest.fixture(scope="session")
def config(prepared: Path, checkpoint: Path) -> str:
    """The real model under its name, and its files once more under the name `second`."""
    return f"""
[paths]
state = "{prepared}/state"
cache = "{prepared}/cache"
[model.second]
path = "{checkpoint}"
"""


@pytest.fixture(scope="session")
def real(config: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """One daemon for all tests that leave it as it was; one model at a time."""
    home = tmp_path_factory.mktemp("real")
    more = "[scheduler]\nmax_loaded_models = 1\n[server]\ntoken_inputs = true\n"
    with daemon(home, config=config + more) as one:
        one.http.timeout = 180.0
        yield one
