"""Names people type, end to end: pulled from a hub, shown, asked, copied and removed by each."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import ollama
import pytest

from tests.fakes.hub import COMMIT, Hub, running
from tests.support.checkpoints import CHATML_TEMPLATE, SMOLLM2, header_of
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from vllamad.core.model_name import parse_model_name
from vllamad.models.store.manifests import Manifest, read_manifest

pytestmark = pytest.mark.integration

CATALOG = """
[tiny]
about = "what the tests pull"
license = "apache-2.0"
latest = "1b"
[tiny.tags.1b]
also = ["1b-instruct"]
parameters = 1e6
shape = { layers = 2, kv_heads = 2, head_dim = 64 }
context = 2048
bf16 = "org/tiny"
awq = "org/tiny-awq"
[tiny.tags.gone]
parameters = 1e6
context = 2048
bf16 = "org/gone"
[unserved]
old = "it is too old"
"""


@pytest.fixture(scope="module")
def hub() -> Generator[Hub]:
    entries, size = header_of({"w": ("BF16", (500,))})
    header = json.dumps(entries).encode()
    files = {
        "config.json": json.dumps(SMOLLM2).encode(),
        "tokenizer_config.json": json.dumps({"chat_template": CHATML_TEMPLATE}).encode(),
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(size),
    }
    with running(files) as one:
        yield one


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    """A daemon without models, with a catalogue of the operator's and a folder `tiny:here`."""
    home = fake_home(tmp_path_factory.mktemp("names"), ["there"])
    local = next((home / "state/models/hub/models--library--there/snapshots").iterdir())
    (home / "etc/vllamad").mkdir(parents=True)
    (home / "etc/vllamad/catalog.toml").write_text(CATALOG)
    config = fake_config(more=f'[model."tiny:here"]\npath = "{local}"')
    environ = {"HF_ENDPOINT": hub.endpoint, "XDG_CONFIG_HOME": str(home / "etc")}
    with daemon(home, config=config, environ=environ) as running_daemon:
        yield running_daemon


def pulled(one: Daemon, name: str) -> list[dict[str, Any]]:
    answer = one.http.post("/api/pull", json={"model": name})
    return [json.loads(line) for line in answer.text.splitlines()]


def names(one: Daemon) -> set[str]:
    return {model["name"] for model in one.http.get("/api/tags").json()["models"]}


def manifest(one: Daemon, name: str) -> Manifest:
    return read_manifest(one.home / "state/models", parse_model_name(name))


NAMES = [
    ("tiny", "tiny:latest", "bf16"),
    ("tiny:1b", "tiny:1b", "bf16"),
    ("tiny:1B-Instruct", "tiny:1B-Instruct", "bf16"),
    ("tiny:1b-fp16", "tiny:1b-fp16", "bf16"),
    ("org/tiny", "org/tiny:latest", ""),
    (f"org/tiny:{COMMIT}", f"org/tiny:{COMMIT}", ""),
    ("hf.co/org/tiny", "hf.co/org/tiny:latest", ""),
    ("https://hf.co/org/tiny:main", "hf.co/org/tiny:main", ""),
    ("huggingface.co/org/tiny", "huggingface.co/org/tiny:latest", ""),
]


@pytest.mark.parametrize(("typed", "shown", "variant"), NAMES)
def test_a_name_works_everywhere(one: Daemon, typed: str, shown: str, variant: str) -> None:
    told = pulled(one, typed)
    assert (told[0], told[-1]) == ({"status": "pulling manifest"}, {"status": "success"})
    assert shown in names(one)
    made = manifest(one, typed)
    assert (made.source, made.revision, made.variant) == ("org/tiny", COMMIT, variant)
    assert one.http.post("/api/show", json={"model": typed}).json()["license"] == "apache-2.0"
    assert one.chat(typed).json()["model"] == typed
    copy = {"source": typed, "destination": "hf.co/mine/alias:1"}
    assert one.http.post("/api/copy", json=copy).status_code == 200
    assert one.chat("hf.co/mine/alias:1").status_code == 200
    for name in (typed, "hf.co/mine/alias:1"):
        answer = one.http.request("DELETE", "/api/delete", json={"model": name})
        assert answer.status_code == 200, answer.text
    assert names(one) == {"there:latest", "tiny:here"}


@pytest.mark.parametrize(("typed", "shown", "variant"), NAMES)
def test_vllamactl_takes_the_same_names(one: Daemon, typed: str, shown: str, variant: str) -> None:
    end = json.loads(one.ctl("pull", "--json", typed).splitlines()[-1])
    assert (end["event"], end["model"]) == ("done", shown)
    assert json.loads(one.ctl("show", "--json", typed))["info"]["name"] == shown
    one.ctl("cp", typed, "alias")
    one.ctl("model", "load", "alias")
    one.ctl("rm", typed)
    one.ctl("rm", "alias")
    assert names(one) == {"there:latest", "tiny:here"}


def test_two_names_of_one_repository_share_its_files(one: Daemon, hub: Hub) -> None:
    pulled(one, "tiny")
    before = len(hub.fetched())
    pulled(one, "org/tiny")
    assert len(hub.fetched()) == before
    assert manifest(one, "tiny").folder == manifest(one, "org/tiny").folder
    one.ctl("rm", "tiny")
    assert one.chat("org/tiny").status_code == 200
    one.ctl("rm", "org/tiny")


def test_a_model_is_made_out_of_a_known_one(one: Daemon) -> None:
    body = {"model": "mine", "from": "tiny:1b", "system": "be brief", "stream": False}
    answer = one.http.post("/api/create", json=body)
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    assert {"mine:latest", "tiny:1b"} <= names(one)
    one.ctl("rm", "mine", "tiny:1b")


def test_ollama_python_pulls_by_a_short_name(one: Daemon) -> None:
    with ollama.Client(host=one.url, timeout=60) as client:
        assert client.pull("tiny").status == "success"
        assert client.show("tiny").details is not None
        client.delete("tiny")


def test_a_folder_of_the_configuration_is_there_already(one: Daemon, hub: Hub) -> None:
    before = len(hub.requests)
    assert pulled(one, "tiny:here") == [{"status": "success"}]
    assert len(hub.requests) == before
    assert one.chat("tiny:here").status_code == 200


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny:2b", "tiny has the tags 1b, gone"),
        ("tinny", "did you mean tiny"),
        ("old", "old cannot be served: it is too old"),
        ("tiny:gone", "the hub has no public repository org/gone"),
        ("org/none", "the hub has no public repository org/none"),
        ("evil.example/org/tiny", "a repository of the hub is written org/repo"),
    ],
)
def test_an_unknown_name_fails_as_ollama_does(one: Daemon, name: str, hint: str) -> None:
    missing = {"error": "pull model manifest: file does not exist"}
    assert pulled(one, name) == [{"status": "pulling manifest"}, missing]
    answer = one.http.post("/api/pull", json={"model": name, "stream": False})
    assert (answer.status_code, answer.json()) == (500, missing)
    assert hint in one.ctl("pull", name, code=1)


def test_gguf_is_refused_with_the_repository_to_use(one: Daemon, hub: Hub) -> None:
    before = len(hub.requests)
    (first, last) = pulled(one, "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M")
    assert first == {"status": "pulling manifest"}
    assert last["error"] == (
        "cannot pull unsloth/Qwen3-8B-GGUF: it holds GGUF files, which vllamad does not serve;"
        " Qwen/Qwen3-8B holds the same model as safetensors"
    )
    assert len(hub.requests) == before


def test_a_fault_in_the_catalogue_is_said_and_hurts_nothing_else(one: Daemon) -> None:
    file = one.home / "etc/vllamad/catalog.toml"
    file.write_text(CATALOG.replace("context = 2048", 'context = "long"'))
    try:
        assert "catalog.toml: tiny:1b: expected `int`" in one.ctl("pull", "tiny", code=1)
        assert one.chat("there").status_code == 200
    finally:
        file.write_text(CATALOG)
