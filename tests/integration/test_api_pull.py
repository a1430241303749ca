"""Pull and push, what there is of Ollama's cloud, and the official client on all of it."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.fakes.hub import Hub
from tests.support.daemon import Daemon, until
from tests.support.managed_daemon import HI, ask, digest_of, lines, names, remove
from tests.support.vectors import numbered

pytestmark = pytest.mark.integration


@pytest.mark.vector(58)
def test_58_what_no_hub_has(managed: Daemon) -> None:
    missing = {"error": "pull model manifest: file does not exist"}
    for name in ("nope-xyz", "org/nothing"):
        told = lines(ask(managed, "/api/pull", {"model": name}))
        assert told == [{"status": "pulling manifest"}, missing]
        answer = ask(managed, "/api/pull", {"name": name, "stream": False})
        assert (answer.status_code, answer.json()) == (500, missing)
        assert answer.headers["content-type"] == "application/json"
    assert lines(ask(managed, "/api/pull", {"model": "nope:cloud"}))[1:] == [missing]
    for body in ({}, {"model": "a b"}):
        answer = ask(managed, "/api/pull", body)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})


def test_a_pull_tells_how_far_it_is(managed: Daemon, hub: Hub) -> None:
    remove(managed, "org/tiny", "mine")
    told = lines(ask(managed, "/api/pull", {"model": "org/tiny", "insecure": True}))
    assert told[0] == {"status": "pulling manifest"}
    assert told[-3:] == [
        {"status": "verifying sha256 digest"}, {"status": "writing manifest"},
        {"status": "success"},
    ]  # fmt: skip
    digest = digest_of(hub.files["model.safetensors"])
    total = len(hub.files["model.safetensors"])
    layer = [line for line in told if line.get("digest") == digest]
    assert layer[0] == {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
    assert layer[-1] == layer[0] | {"completed": total}
    assert "org/tiny:latest" in names(managed)


def test_a_client_that_leaves_calls_its_pull_off(managed: Daemon, hub: Hub) -> None:
    remove(managed, "org/tiny", "mine")
    hub.hold("model.safetensors")
    try:
        with managed.http.stream("POST", "/api/pull", json={"model": "org/tiny"}) as response:
            answer = response.iter_lines()
            assert json.loads(next(answer)) == {"status": "pulling manifest"}
            assert hub.stalled.wait(30)
        until(lambda: not [p for p in managed.processes() if "models.pull" in command(p.pid)])
    finally:
        hub.release()
    assert "org/tiny:latest" not in names(managed)
    assert lines(ask(managed, "/api/pull", {"model": "org/tiny"}))[-1] == {"status": "success"}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def test_push_has_nowhere_to_go(managed: Daemon) -> None:
    assert lines(ask(managed, "/api/push", {"model": "test"})) == [
        {"status": "retrieving manifest"}, {"error": "push is not supported"},
    ]  # fmt: skip
    answer = ask(managed, "/api/push", {"name": "test", "stream": False})
    assert (answer.status_code, answer.json()) == (501, {"error": "push is not supported"})
    assert ask(managed, "/api/push", {}).json() == {"error": "model is required"}


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    numbered(
        (5, "GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        (0, "POST", "/api/me", 503, {"error": "account unavailable"}),
        (0, "POST", "/api/signout", 401, {"error": "you are not currently signed in"}),
        (0, "DELETE", "/api/user/keys/abc", 401, {"error": "you are not currently signed in"}),
        (0, "GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
        (0, "POST", "/api/experimental/web_search", 400, {"error": "missing request body"}),
    ),
)
def test_5_routes_of_the_cloud_say_that_there_is_none(
    managed: Daemon, method: str, path: str, status: int, body: Any
) -> None:
    answer = managed.http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize(("what", "name"), [("web_search", "search"), ("web_fetch", "fetch")])
def test_the_web_is_not_searched(managed: Daemon, what: str, name: str) -> None:
    answer = ask(managed, f"/api/experimental/{what}", {"query": "x", "url": "x"})
    assert answer.status_code == 403
    assert answer.json()["error"] == f"ollama cloud is disabled: web {name} is unavailable"


@pytest.fixture
def client(managed: Daemon) -> Generator[ollama.Client]:
    with ollama.Client(host=managed.url, timeout=60) as made:
        yield made


def test_ollama_python_makes_copies_shows_and_deletes(client: ollama.Client) -> None:
    made = client.create("pet", from_="test", system="You are a cat.", parameters={"top_k": 3})
    assert made.status == "success"
    assert [step.status for step in client.create("pet", from_="pet", stream=True)][-1] == "success"
    assert client.copy("pet", "cat").status == "success"
    assert (client.show("cat").parameters or "").split() == ["top_k", "3"]
    assert client.chat("cat", HI).message.content
    assert client.delete("cat").status == "success"
    with pytest.raises(ollama.ResponseError) as raised:
        client.delete("cat")
    assert raised.value.status_code == 404


def test_ollama_python_uploads_pulls_and_pushes(client: ollama.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert client.create_blob(tmp_path / "file") == digest_of(b"content")
    assert client.pull("org/tiny").status == "success"
    steps = list(client.pull("org/tiny", stream=True))
    assert steps[0].status == "pulling manifest"
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        client.pull("nope-xyz")
    with pytest.raises(ollama.ResponseError, match="push is not supported"):
        list(client.push("pet", stream=True))
