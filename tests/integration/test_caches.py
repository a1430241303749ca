"""A model in a cache of other tools: used where it lies, and nothing of it is ours to change."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.checkpoints import bring
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.managed_daemon import ask, names, shown, worker

pytestmark = pytest.mark.integration

MODEL = "Org/Tiny-1.5B:latest"


@pytest.fixture(params=["hub.caches", "HF_HOME"])
def cached(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[tuple[Daemon, Path]]:
    """A daemon with nothing of its own, and the folder of a model that another tool brought."""
    cache = tmp_path / "other" / "hub"
    snapshot = bring(cache, "Org/Tiny-1.5B")
    told = request.param == "hub.caches"
    more = f"[hub]\ncaches = [{json.dumps(str(cache))}]" if told else ""
    environ = {} if told else {"HF_HOME": str(cache.parent)}
    home = tmp_path / "home"
    home.mkdir()
    with daemon(fake_home(home, []), config=fake_config(more=more), environ=environ) as one:
        yield one, snapshot


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, with its size and the time of its last change."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def models_folder(one: Daemon) -> Path:
    return one.home / "state" / "models"


def test_a_cached_model_is_listed_shown_and_answers_without_a_copy(
    cached: tuple[Daemon, Path],
) -> None:
    one, snapshot = cached
    before = files_below(snapshot.parents[2])
    assert names(one) == {MODEL}
    assert "Org/Tiny-1.5B" in one.ctl("list")
    assert shown(one, "org/tiny-1.5b")["model_info"]["general.architecture"] == "llama"
    assert str(snapshot) in one.ctl("show", "--json", "org/tiny-1.5b")
    answer = one.http.post(
        "/api/generate", json={"model": "org/tiny-1.5b", "prompt": "hi", "stream": False}
    )
    assert answer.json()["response"]
    assert worker(one, MODEL)["state"] == "ready"
    assert "0 files" not in one.ctl("verify")
    one.ctl("prune")
    assert files_below(snapshot.parents[2]) == before
    weights = [path for path in models_folder(one).rglob("*") if path.suffix == ".safetensors"]
    assert weights == []


def test_what_another_tool_brought_is_not_ours_to_delete(cached: tuple[Daemon, Path]) -> None:
    one, snapshot = cached
    before = files_below(snapshot.parents[2])
    answer = ask(one, "/api/delete", {"model": "org/tiny-1.5b"}, "DELETE")
    assert answer.status_code == 400
    reason = "it is in a cache that other tools use too"
    assert reason in answer.json()["error"]
    told = one.ctl("rm", "org/tiny-1.5b", code=1)
    assert reason in told
    assert str(snapshot.parents[1]) in told
    assert names(one) == {MODEL}
    assert files_below(snapshot.parents[2]) == before


def test_an_alias_of_it_comes_and_goes_and_leaves_it_alone(cached: tuple[Daemon, Path]) -> None:
    one, snapshot = cached
    before = files_below(snapshot.parents[2])
    one.ctl("cp", "org/tiny-1.5b", "pet")
    assert names(one) == {MODEL, "pet:latest"}
    answer = one.http.post("/api/generate", json={"model": "pet", "prompt": "hi", "stream": False})
    assert answer.json()["response"]
    assert [found["model"] for found in one.workers()] == [MODEL], "it shares the worker"
    one.ctl("prune")
    one.ctl("rm", "pet")
    assert names(one) == {MODEL}
    assert files_below(snapshot.parents[2]) == before
    kept = [path.name for path in models_folder(one).rglob("*") if path.is_file()]
    assert [name for name in kept if not name.endswith(".lock")] == []


def test_a_cached_model_that_another_tool_removes_is_gone(cached: tuple[Daemon, Path]) -> None:
    one, snapshot = cached
    os.rename(snapshot, snapshot.with_name("gone"))
    assert names(one) == set()
    answer = one.http.post("/api/generate", json={"model": "org/tiny-1.5b", "prompt": "hi"})
    assert answer.status_code == 404
