"""How the tests of create, copy, delete, blobs and pull ask, and how they look at what is there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.daemon import Daemon, fake_home

HI = [{"role": "user", "content": "hi"}]
JSON = "application/json; charset=utf-8"
NOBODY = "sha256:" + "0" * 64


def ask(one: Daemon, path: str, body: Any, method: str = "POST") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return one.http.request(method, path, content=content)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def names(one: Daemon) -> set[str]:
    return {model["name"] for model in one.http.get("/api/tags").json()["models"]}


def shown(one: Daemon, model: str) -> dict[str, Any]:
    return ask(one, "/api/show", {"model": model}).json()


def make(one: Daemon, model: str, base: str = "test", **more: Any) -> None:
    answer = ask(one, "/api/create", {"model": model, "from": base, "stream": False, **more})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def in_store(one: Daemon, pattern: str) -> list[Path]:
    return [path for path in (one.home / "state/models").glob(pattern) if path.is_file()]


def worker(one: Daemon, model: str) -> dict[str, Any]:
    return next((found for found in one.workers() if found["model"] == model), {})


def install(one: Daemon, name: str) -> None:
    """A model with files of its own."""
    fake_home(one.home / "more" / name, [name])
    made = one.home / "more" / name / "state/models"
    for path in made.glob("**/*"):
        target = one.home / "state/models" / path.relative_to(made)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
    files = sorted((p for p in made.glob("**/*") if p.is_file()), key=lambda p: p.suffix == ".json")
    for path in sorted(files, key=lambda p: "manifests" in p.parts):
        path.replace(one.home / "state/models" / path.relative_to(made))


def shown_digest(one: Daemon, name: str) -> str:
    tags = one.http.get("/api/tags").json()["models"]
    return next(model["digest"] for model in tags if model["name"] == name)


def remove(one: Daemon, *models: str) -> None:
    for model in models:
        answer = ask(one, "/api/delete", {"model": model}, "DELETE")
        assert answer.status_code in (200, 404), answer.text
