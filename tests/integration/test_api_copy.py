"""Copy and delete: two names for one model, and what goes with the last of them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, until
from tests.support.managed_daemon import (
    JSON,
    ask,
    in_store,
    install,
    make,
    names,
    shown,
    worker,
)

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("source", "destination", "status", "text"),
    [
        ("a b", "c", 400, 'source "a b" is invalid'),
        ("", "c", 400, 'source "" is invalid'),
        ("test", "", 400, 'destination "" is invalid'),
        ("test", "c d", 400, 'destination "c d" is invalid'),
        ("nope", "c", 404, 'model "nope" not found'),
        ("test", "local", 400, "cannot change local:latest: the configuration defines it"),
    ],
)
@pytest.mark.vector(55)
def test_55_what_cannot_be_copied(
    managed: Daemon, source: str, destination: str, status: int, text: str
) -> None:
    answer = ask(managed, "/api/copy", {"source": source, "destination": destination})
    assert (answer.status_code, answer.json()) == (status, {"error": text})
    assert answer.headers["content-type"] == JSON


@pytest.mark.vector(55)
def test_55_a_copy_is_the_same_model_under_another_name(managed: Daemon) -> None:
    answer = ask(managed, "/api/copy", {"source": "test", "destination": "twin:x"})
    assert (answer.status_code, answer.content) == (200, b"")
    tags = {model["name"]: model for model in managed.http.get("/api/tags").json()["models"]}
    assert tags["twin:x"]["digest"] == tags["test:latest"]["digest"]
    assert tags["twin:x"]["size"] == tags["test:latest"]["size"]
    assert managed.chat("twin:x").json()["model"] == "twin:x"


@pytest.mark.vector(55)
def test_55_a_copy_onto_itself_is_nothing_even_where_nothing_is(managed: Daemon) -> None:
    for name in ("ghost", "test"):
        answer = ask(
            managed, "/api/copy", {"source": name, "destination": f"{name.upper()}:latest"}
        )
        assert (answer.status_code, answer.content) == (200, b"")
    assert "ghost:latest" not in names(managed)


def test_a_copy_runs_on_the_worker_of_its_original(managed: Daemon) -> None:
    ask(managed, "/api/copy", {"source": "test", "destination": "shared"})
    managed.chat("test")
    pid = worker(managed, "test:latest")["pid"]
    managed.chat("shared")
    assert worker(managed, "test:latest")["pid"] == pid
    assert "shared:latest" not in {worker["model"] for worker in managed.workers()}
    unload = {"model": "shared", "keep_alive": 0}
    assert ask(managed, "/api/generate", unload).json()["done_reason"] == "unload"
    until(lambda: worker(managed, "test:latest") == {})


def test_a_copy_overwrites_what_was_there(managed: Daemon) -> None:
    make(managed, "over", system="first")
    ask(managed, "/api/copy", {"source": "test", "destination": "OVER"})
    assert "system" not in shown(managed, "over")


def test_a_copy_of_a_configured_folder_uses_that_folder(managed: Daemon) -> None:
    ask(managed, "/api/copy", {"source": "local", "destination": "away"})
    assert managed.chat("away").status_code == 200
    assert worker(managed, "local:latest")["state"] == "ready"
    assert shown(managed, "away")["details"]["parent_model"] == "local:latest"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"name": "nope"}, 404, "model 'nope' not found"),
        ({"model": "a b"}, 400, 'name "a b" is invalid'),
        ({}, 400, "model is required"),
        ({"model": "", "name": ""}, 400, "model is required"),
        (b"", 400, "missing request body"),
        ({"model": "nope:cloud"}, 404, "model 'nope:cloud' not found"),
        ({"model": "local"}, 400,
         "cannot change local:latest: the configuration defines it"),
    ],
)  # fmt: skip
@pytest.mark.vector(56)
def test_56_what_cannot_be_deleted(managed: Daemon, body: Any, status: int, text: str) -> None:
    answer = ask(managed, "/api/delete", body, "DELETE")
    assert (answer.status_code, answer.json()) == (status, {"error": text})


@pytest.mark.vector(56)
def test_56_a_deleted_model_is_gone_with_its_files(managed: Daemon, tmp_path: Path) -> None:
    install(managed, "gone")
    assert in_store(managed, "hub/models--library--gone/**/*")
    answer = ask(managed, "/api/delete", {"name": "gone"}, "DELETE")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "gone:latest" not in names(managed)
    assert in_store(managed, "hub/models--library--gone/**/*") == []
    assert managed.chat("gone").status_code == 404


def test_the_files_stay_until_the_last_name_goes(managed: Daemon) -> None:
    install(managed, "first")
    ask(managed, "/api/copy", {"source": "first", "destination": "second"})
    ask(managed, "/api/copy", {"source": "first", "destination": "third"})
    ask(managed, "/api/delete", {"model": "first"}, "DELETE")
    managed.chat("second")
    managed.chat("third")
    loaded = {found["model"] for found in managed.workers()}
    assert len(loaded & {"second:latest", "third:latest"}) == 1, "they still share a worker"
    ask(managed, "/api/delete", {"model": "second"}, "DELETE")
    assert managed.chat("third").status_code == 200
    ask(managed, "/api/delete", {"model": "third"}, "DELETE")
    assert in_store(managed, "hub/models--library--first/**/*") == []


def test_deleting_a_model_in_use_lets_its_streams_end_and_takes_nobody_new(managed: Daemon) -> None:
    make(managed, "stays", "slow")  # so that its files stay for the other tests
    with managed.streaming("slow") as response:
        answer = response.iter_lines()
        next(answer)
        with ThreadPoolExecutor(1) as pool:
            deleted = pool.submit(ask, managed, "/api/delete", {"model": "slow"}, "DELETE")
            until(lambda: managed.chat("slow").status_code == 404)
            rest = [json.loads(line) for line in answer]
            assert deleted.result(60).status_code == 200
    assert rest[-1]["done"] is True
    assert worker(managed, "slow:latest") == {}
    ask(managed, "/api/copy", {"source": "stays", "destination": "slow"})


def test_deleting_a_model_that_loads_refuses_who_waits_for_it(managed: Daemon) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(managed.chat, "kept")
        until(lambda: worker(managed, "kept:latest").get("state") == "starting")
        assert ask(managed, "/api/delete", {"model": "kept"}, "DELETE").status_code == 200
        answer = waiting.result(60)
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'kept:latest' not found"})
    assert worker(managed, "kept:latest") == {}
