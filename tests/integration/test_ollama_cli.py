"""The `ollama` command line against us: its own binary where there is one, its exchanges otherwise.

What it sends and what it insists on was taken from its documented behaviour: a HEAD before
everything, both `model` and `name` in every body, zero values spelled out, strict types in answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.hub import Hub
from tests.support.checkpoints import SMOLLM2, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home

pytestmark = pytest.mark.integration

PARIS = "The capital of France is Paris."
HEADERS = {
    "User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.24.1",
    "Content-Type": "application/json",
    "Accept": "application/json",
}
LINES = HEADERS | {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("cli"), ["test", "spare"])
    with daemon(home, config=fake_config(), environ={"HF_ENDPOINT": hub.endpoint}) as running:
        yield running


class Cli:
    """What the command line sends, a request at a time, as strict with answers as it is."""

    def __init__(self, one: Daemon) -> None:
        self._one = one
        beat = one.http.head("/", headers=HEADERS)
        assert (beat.status_code, beat.content) == (200, b"")

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> httpx.Response:
        return self._one.http.request(method, path, content=json.dumps(body), headers=HEADERS)

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self._one.http.post(path, content=json.dumps(body), headers=LINES)
        assert answer.status_code == 200, answer.text
        steps = [json.loads(line) for line in answer.text.splitlines()]
        assert not any(step.get("error") for step in steps), steps[-1]
        return steps

    def show(self, name: str) -> httpx.Response:
        return self.post(
            "/api/show",
            {
                "model": "", "system": "", "template": "", "verbose": False, "options": None,
                "name": name,
            },
        )  # fmt: skip

    def generate(self, model: str, **more: Any) -> list[dict[str, Any]]:
        body = {"model": model, "prompt": "", "suffix": "", "system": "", "template": ""}
        return self.stream("/api/generate", body | {"options": None} | more)

    def pull(self, name: str) -> list[dict[str, Any]]:
        body = {"model": "", "insecure": False, "username": "", "password": "", "stream": None}
        return self.stream("/api/pull", body | {"name": name})


def is_moment(text: str) -> bool:
    """RFC 3339 with a zone: the command line gives up on any other."""
    trimmed = re.sub(r"\.\d+", "", text)
    return datetime.fromisoformat(trimmed).tzinfo is not None


def test_list(one: Daemon) -> None:
    Cli(one)
    models = one.http.get("/api/tags", headers=HEADERS).json()["models"]
    assert {"test:latest", "spare:latest"} <= {model["name"] for model in models}
    for model in models:
        assert re.fullmatch("[0-9a-f]{64}", model["digest"])
        assert isinstance(model["size"], int)
        assert is_moment(model["modified_at"])


def test_run_with_a_prompt(one: Daemon) -> None:
    cli = Cli(one)
    shown = cli.show("test").json()
    assert "completion" in shown["capabilities"]
    said = cli.generate("test", prompt="hi", context=[], keep_alive=None, think=None, format="")
    assert "".join(step["response"] for step in said) == PARIS
    last = said[-1]
    assert last["done"]
    for name in ("total_duration", "load_duration", "prompt_eval_count", "eval_count"):
        assert isinstance(last[name], int)


def test_run_as_a_conversation(one: Daemon) -> None:
    cli = Cli(one)
    assert cli.show("test").status_code == 200
    (loaded,) = cli.generate("test")
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    messages = [{"role": "user", "content": "hi"}]
    said = cli.stream(
        "/api/chat",
        {"model": "test", "messages": messages, "format": "", "tools": None, "options": {}},
    )
    assert {step["message"]["role"] for step in said} == {"assistant"}
    assert "".join(step["message"]["content"] for step in said) == PARIS


def test_run_of_a_model_that_is_not_there_pulls_it(one: Daemon) -> None:
    cli = Cli(one)
    missing = cli.show("org/tiny")
    assert missing.status_code == 404
    assert "not found" in missing.json()["error"]
    steps = cli.pull("org/tiny")
    assert steps[0]["status"] == "pulling manifest"
    assert steps[-1] == {"status": "success"}
    for step in steps:
        if "digest" in step:  # it shows twelve signs of what is behind `sha256:`
            assert re.fullmatch("sha256:[0-9a-f]{64}", step["digest"])
            assert step.get("completed", 0) <= step["total"]
    assert cli.show("org/tiny").status_code == 200


def test_pull_of_what_no_hub_has(one: Daemon) -> None:
    cli = Cli(one)
    body = {"model": "", "name": "no/such", "insecure": False, "stream": None}
    answer = one.http.post("/api/pull", content=json.dumps(body), headers=LINES)
    last = json.loads(answer.text.splitlines()[-1])
    assert "pull model manifest: file does not exist" in last["error"]
    assert cli.show("no/such").status_code == 404


def test_ps_and_stop(one: Daemon) -> None:
    cli = Cli(one)
    cli.generate("spare")
    (loaded,) = [
        model
        for model in one.http.get("/api/ps", headers=HEADERS).json()["models"]
        if model["name"] == "spare:latest"
    ]
    assert re.fullmatch("[0-9a-f]{64}", loaded["digest"])
    assert is_moment(loaded["expires_at"])
    assert loaded["size"] > 0
    assert loaded["size_vram"] == 0  # it prints 100% CPU
    assert isinstance(loaded["context_length"], int)
    assert cli.show("spare").status_code == 200
    (stopped,) = cli.generate("spare", keep_alive="0s")
    assert stopped["done_reason"] == "unload"


def test_show(one: Daemon) -> None:
    shown = Cli(one).show("test").json()
    family = shown["model_info"]["general.architecture"]
    assert isinstance(shown["model_info"][f"{family}.context_length"], int)
    assert isinstance(shown["model_info"][f"{family}.embedding_length"], int)
    assert {"parameter_size", "quantization_level"} <= shown["details"].keys()
    assert is_moment(shown["modified_at"])


def test_cp_and_rm(one: Daemon) -> None:
    cli = Cli(one)
    copied = cli.post("/api/copy", {"source": "test", "destination": "second"})
    assert (copied.status_code, copied.content) == (200, b"")
    cli.generate("second", keep_alive="0s")
    removed = cli.post("/api/delete", {"model": "", "name": "second"}, "DELETE")
    assert (removed.status_code, removed.content) == (200, b"")
    assert cli.show("second").status_code == 404


def test_create(one: Daemon, tmp_path: Path) -> None:
    cli = Cli(one)
    folder = write_checkpoint(tmp_path / "ck", SMOLLM2, tokenizer_json={})
    files: dict[str, str] = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        files[path.name] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        headers = HEADERS | {"Content-Type": "application/octet-stream"}
        answer = one.http.post(f"/api/blobs/{files[path.name]}", content=content, headers=headers)
        assert answer.status_code in (200, 201)
    steps = cli.stream(
        "/api/create",
        {"model": "made", "stream": None, "files": files, "parameters": {"temperature": 0.5}},
    )
    assert steps[-1] == {"status": "success"}
    said = cli.generate("made", prompt="hi")
    assert "".join(step["response"] for step in said) == PARIS


def binary() -> str:
    found = shutil.which("ollama")
    if found is None:
        pytest.skip("no ollama command on this machine: only its exchanges are tested")
    return found


def ollama(one: Daemon, *words: str, given: str = "") -> str:
    done = subprocess.run(
        [binary(), *words],
        input=given,
        env={"OLLAMA_HOST": one.url, "HOME": str(one.home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_the_command_itself_works(one: Daemon, tmp_path: Path) -> None:
    assert "test:latest" in ollama(one, "list")
    assert PARIS in ollama(one, "run", "test", given="hi")
    assert "test:latest" in ollama(one, "ps")
    assert "context length" in ollama(one, "show", "test")
    ollama(one, "cp", "test", "copy")
    (tmp_path / "Modelfile").write_text("FROM test\nSYSTEM be terse\n")
    ollama(one, "create", "terse", "-f", str(tmp_path / "Modelfile"))
    assert "be terse" in ollama(one, "show", "terse", "--system")
    ollama(one, "stop", "test")
    ollama(one, "rm", "copy", "terse")
    assert "copy" not in ollama(one, "list")
    ollama(one, "pull", "org/tiny")
