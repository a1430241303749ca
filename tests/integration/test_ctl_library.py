"""Promises of `vllamactl` about the library, against a whole daemon."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.hub import Hub
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from vllamad.core.model_name import parse_model_name
from vllamad.host.log_events import LogEvent
from vllamad.models.store import manifests

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("library"), ["test", "other"])
    with daemon(home, config=fake_config(), environ={"HF_ENDPOINT": hub.endpoint}) as running:
        yield running


def place(one: Daemon, model: str) -> Path:
    models = one.home / "state" / "models"
    return models / manifests.read_manifest(models, parse_model_name(model)).folder


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_whole_models_are_verified(one: Daemon) -> None:
    assert "✓ test verified in " in one.ctl("verify", "test")
    last = events(one.ctl("verify", "--json"))[-1]
    assert (last["event"], last["bad"]) == ("done", [])
    assert {"test:latest", "other:latest"} <= set(last["models"])  # pyright: ignore


def test_a_bad_file_is_named_and_is_exit_code_1(one: Daemon) -> None:
    one.ctl("cp", "other", "mine")
    path = place(one, "other") / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    said = one.ctl("verify", code=1)
    told = events(one.ctl("verify", "other", "--json", code=1))
    path.write_bytes(whole)
    assert "✗ other:latest model.safetensors: has other content than it should" in said
    assert "✗ mine:latest model.safetensors" in said
    assert "✗ 2 files are not as downloaded" in said
    bad = {"event": "bad", "model": "other:latest", "file": "model.safetensors"}
    assert any(bad.items() <= event.items() for event in told)
    assert "error" in told[-1]


def test_a_model_nobody_has_cannot_be_verified(one: Daemon) -> None:
    assert "✗ model 'nothing:latest' not found" in one.ctl("verify", "nothing", code=1)


def test_what_no_model_needs_is_pruned(one: Daemon) -> None:
    left = one.home / "state/models/hub/models--org--gone/blobs/half.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 1500)
    would = json.loads(one.ctl("prune", "--dry-run", "--json"))
    assert (would["dry_run"], would["freed"]) == (True, 1500)
    assert left.exists()
    said = one.ctl("prune")
    assert "half.incomplete  1.5 KB, part of an unfinished pull" in said
    assert "✓ freed 1.5 KB, 1 item" in said
    assert one.ctl("prune") == "✓ nothing to remove\n"


def test_show_tells_what_it_takes_in_memory(one: Daemon) -> None:
    shown = json.loads(one.ctl("show", "--json", "test"))
    assert shown["memory"]["weights"] > 0
    assert shown["memory"]["planned"] > shown["memory"]["weights"]
    assert shown["memory"]["threads"] >= 1
    assert shown["memory"]["dtype"] == "bfloat16"
    assert shown["memory"]["dtype_why"] == "1.0 x as fast as float32 here"
    text = one.ctl("show", "test")
    assert "  Memory\n" in text
    assert "tokens" in text


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--modelfile", "FROM test:latest"),
        ("--parameters", ""),
        ("--system", ""),
        ("--license", ""),
        ("--template", ""),
    ],
)
def test_show_prints_one_text_as_it_stands(one: Daemon, flag: str, told: str) -> None:
    assert told in one.ctl("show", "test", flag)


def test_info_tells_of_the_machine_with_and_without_a_daemon(one: Daemon, tmp_path: Path) -> None:
    found = json.loads(one.ctl("info", "--json"))
    assert found["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert found["memory"]["total"] >= found["memory"]["available"] > 0
    assert found["versions"]["daemon"] == found["versions"]["client"]
    assert found["paths"]["state"] == str(one.home / "state")
    assert [runtime["name"] for runtime in found["runtimes"]] == ["fake"]
    without = json.loads(one.ctl("info", "--json", "--socket", str(tmp_path / "none")))
    assert without["versions"]["daemon"] is None
    assert without["cpu"] == found["cpu"]
    assert "  Machine\n    cpu " in one.ctl("info")


def test_stop_unloads(one: Daemon) -> None:
    one.ctl("model", "load", "test")
    assert "test" in one.ctl("ps", "te")
    assert "test" not in one.ctl("ps", "other")
    assert one.ctl("stop", "test").startswith("✓ unloaded test in ")
    until(lambda: "test" not in one.ctl("ps", "-q"))


def test_several_models_are_removed_at_once(one: Daemon) -> None:
    one.ctl("cp", "test", "first")
    one.ctl("cp", "test", "second")
    assert one.ctl("list", "-q", "firs") == "first:latest\n"
    removed = events(one.ctl("rm", "--json", "first", "second"))
    done = [event["model"] for event in removed if event.get("deleted")]
    assert done == ["first", "second"]
    assert one.ctl("list", "-q", "first") == ""


def test_a_detached_pull_goes_on_without_us(one: Daemon, hub: Hub) -> None:
    hub.hold("model.safetensors")
    try:
        left = events(one.ctl("pull", "--json", "--detach", "org/tiny"))[-1]
        assert left == {"event": "detached", "model": "org/tiny"}
        assert hub.stalled.wait(60)
        assert one.ctl("list", "-q", "org/") == ""
    finally:
        hub.release()
    until(lambda: one.ctl("list", "-q", "org/") == "org/tiny:latest\n")
    last = events(one.ctl("pull", "--json", "--detach", "org/tiny"))[-1]
    assert last["event"] == "done", "what is here already needs nobody to go on"


def test_a_start_on_a_cpu_is_explained_in_the_log_and_in_ps(one: Daemon) -> None:
    one.ctl("model", "load", "test")
    line = one.logged(LogEvent.WORKER_STARTING, model="test:latest")[-1]
    assert 'dtype=bfloat16 dtype_why="1.0 x as fast as float32 here"' in line
    assert "threads=" in line
    assert "threads_why=" in line
    assert "openmp=" in line
    (worker,) = json.loads(one.ctl("ps", "--json"))["workers"]
    assert (worker["dtype"], worker["dtype_why"]) == ("bfloat16", "1.0 x as fast as float32 here")
    assert f"threads={worker['threads']} " in line
