"""`/api/create` with `files`: a checkpoint out of uploaded blobs, with the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.support.checkpoints import SMOLLM2, write_checkpoint, write_safetensors
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.managed_daemon import (
    NOBODY,
    ask,
    digest_of,
    in_store,
    lines,
    names,
    remove,
    shown,
    worker,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `test`."""
    home = fake_home(tmp_path_factory.mktemp("files"), ["test"])
    with daemon(home, config=fake_config()) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint, ready to be uploaded."""
    return write_checkpoint(
        tmp_path / "made", SMOLLM2, tokenizer_json={}, chat_template_jinja="{{ messages }}"
    )


def upload(one: Daemon, folder: Path) -> dict[str, str]:
    """Upload each file; its name to its digest."""
    files: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        files[path.name] = digest_of(content)
        answer = one.http.post(f"/api/blobs/{files[path.name]}", content=content)
        assert answer.status_code in (200, 201)
    return files


def create(one: Daemon, model: str, files: dict[str, str], **more: Any) -> None:
    body = {"model": model, "files": files, "stream": False, **more}
    answer = ask(one, "/api/create", body)
    assert (answer.status_code, answer.text) == (200, '{"status":"success"}')


def test_the_official_client_uploads_creates_and_chats(one: Daemon, folder: Path) -> None:
    with ollama.Client(host=one.url, timeout=60) as client:
        files = {path.name: client.create_blob(path) for path in folder.iterdir()}
        steps = [step.status for step in client.create("mine", files=files, stream=True)]
        told = client.show("mine")
        heard = client.chat("mine", [{"role": "user", "content": "hi"}])
    assert steps[0] == "converting model"
    assert {step for step in steps if step and " layer " in step} == {
        f"using existing layer {digest}" for digest in files.values()
    }
    assert steps[-2:] == ["writing manifest", "success"]
    assert told.details is not None
    assert (told.details.family, told.details.format) == ("llama", "safetensors")
    assert told.capabilities == ["completion"]
    assert heard.message.content == "The capital of France is Paris."


def test_what_is_said_on_top_of_the_files_holds(one: Daemon, folder: Path) -> None:
    more = {
        "system": "Be kind.", "template": "{{ messages[0].content }}", "license": "MIT",
        "parameters": {"num_predict": 3}, "messages": [{"role": "user", "content": "before"}],
    }  # fmt: skip
    create(one, "told", upload(one, folder), **more)
    reply = shown(one, "told")
    assert (reply["system"], reply["license"]) == ("Be kind.", "MIT")
    assert reply["template"] == "{{ messages[0].content }}"
    assert reply["messages"] == [{"role": "user", "content": "before"}]
    assert reply["modelfile"].splitlines()[1] == "FROM told:latest"
    answer = one.chat("told", "hi").json()
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 3)
    assert answer["prompt_eval_count"] == 4, "the system message, the history and ours"


def test_each_part_on_top_is_a_new_layer_and_the_rest_is_left_out(
    one: Daemon, folder: Path
) -> None:
    (folder / "modeling.py").write_text("import os")
    body = {"model": "layers", "files": upload(one, folder), "system": "Be kind."}
    told = [line["status"] for line in lines(ask(one, "/api/create", body))]
    assert [status for status in told if " layer " not in status] == [
        "converting model", "leaving out modeling.py", "writing manifest", "success",
    ]  # fmt: skip
    assert len([status for status in told if status.startswith("creating new layer ")]) == 1
    assert in_store(one, "hub/models--library--layers/**/*.py") == []


CASES = {
    "no blob": ({"tokenizer.json": NOBODY}, [], f'blob "{NOBODY}" not found'),
    "no config": ({}, ["config.json"], "cannot find config.json among the files"),
    "no tokenizer": (
        {}, ["tokenizer.json"],
        "cannot find a tokenizer among the files: tokenizer.json or the like",
    ),
    "no weights": (
        {}, ["model.safetensors"], "unknown type: none of the files is a .safetensors file",
    ),
    "gguf": (
        {"model.gguf": NOBODY}, ["model.safetensors"],
        "unknown type: the engine serves no GGUF files; upload the model's safetensors files,"
        " or pull it",
    ),
    "out of the folder": ({"../config.json": NOBODY}, [], "file path must be relative"),
    "absolute": ({"/etc/config.json": NOBODY}, [], "file path must be relative"),
    "no digest": ({"tokenizer.json": ""}, [], "invalid digest format"),
    "a bad digest": ({"tokenizer.json": "sha256:x"}, [], "invalid digest format"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_model_is_refused_with_the_reason(
    one: Daemon, folder: Path, case: str, stream: bool
) -> None:
    changed, missing, text = CASES[case]
    files = upload(one, folder) | changed
    sent = {name: digest for name, digest in files.items() if name not in missing}
    answer = ask(one, "/api/create", {"model": "x", "files": sent, "stream": stream})
    assert (answer.status_code, answer.json()) == (400, {"error": text})
    assert "x:latest" not in names(one)
    assert in_store(one, "hub/models--library--x/**/*") == []


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("config.json", b"{", "cannot use config.json: it is not a JSON object"),
        ("model.safetensors", b"\xff" * 99,
         "cannot use model.safetensors: its header does not fit its 99 bytes"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}',
         "cannot find gone.safetensors, one of 1 files of weights"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../../config.json"}}',
         "cannot use the file name '../../config.json': it leads out of the model's folder"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_should_be_is_named(
    one: Daemon, folder: Path, name: str, content: bytes, text: str
) -> None:
    (folder / name).write_bytes(content)
    answer = ask(one, "/api/create", {"model": "x", "files": upload(one, folder)})
    assert (answer.status_code, answer.json()) == (400, {"error": text})
    assert in_store(one, "hub/models--library--x/**/*") == []


def test_an_adapter_of_another_model_leaves_nothing_of_either(
    one: Daemon, folder: Path, tmp_path: Path
) -> None:
    shapes = {f"model.layers.0.q_proj.lora_{part}.weight": ("BF16", (4, 4)) for part in "AB"}
    (tmp_path / "lora").mkdir()
    write_safetensors(tmp_path / "lora/adapter_model.safetensors", shapes)
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    body = {"model": "x", "files": upload(one, folder), "adapters": upload(one, tmp_path / "lora")}
    answer = ask(one, "/api/create", body)
    said = {"error": "cannot use the adapter: the model has none of its layers"}
    assert (answer.status_code, answer.json()) == (400, said)
    assert in_store(one, "hub/models--library--x/**/*") == in_store(one, "adapters/**/*") == []


def test_two_sources_are_one_too_many(one: Daemon, folder: Path) -> None:
    answer = ask(one, "/api/create", {"model": "x", "from": "test", "files": upload(one, folder)})
    said = {"error": "cannot use both 'from' and 'files': name one of them"}
    assert (answer.status_code, answer.json()) == (400, said)


def test_other_files_take_the_place_of_what_was_there(one: Daemon, folder: Path) -> None:
    create(one, "again", upload(one, folder))
    assert one.chat("again").status_code == 200
    before = worker(one, "again:latest")["pid"]
    [old] = in_store(one, "hub/models--library--again/snapshots/*/model.safetensors")

    write_safetensors(folder / "model.safetensors", {"embed.weight": ("BF16", (32, 4))})
    create(one, "again", upload(one, folder))
    assert one.chat("again").status_code == 200
    assert worker(one, "again:latest")["pid"] != before
    [new] = in_store(one, "hub/models--library--again/snapshots/*/model.safetensors")
    assert new != old


def test_files_take_the_place_of_a_model_made_from_another(one: Daemon, folder: Path) -> None:
    body = {"model": "was", "from": "test", "system": "x", "stream": False}
    assert ask(one, "/api/create", body).status_code == 200
    create(one, "was", upload(one, folder))
    assert shown(one, "was")["details"]["parent_model"] == ""
    assert "system" not in shown(one, "was")
    assert one.chat("test").status_code == 200, "its files are still there"


def test_a_model_of_files_can_be_a_base(one: Daemon, folder: Path) -> None:
    create(one, "root", upload(one, folder))
    body = {"model": "leaf", "from": "root", "system": "x", "stream": False}
    assert ask(one, "/api/create", body).status_code == 200
    remove(one, "root")
    assert one.chat("leaf").status_code == 200


def test_a_deleted_model_leaves_neither_files_nor_blobs(one: Daemon, folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"only": "here"}))
    files = upload(one, folder)
    path = f"/api/blobs/{files['generation_config.json']}"
    create(one, "gone", files)
    assert one.http.head(path).status_code == 200, "it need not be uploaded again"
    remove(one, "gone")
    assert one.http.head(path).status_code == 404
    assert in_store(one, "hub/models--library--gone/**/*") == []


def test_two_who_create_the_same_model_at_once_both_succeed(one: Daemon, folder: Path) -> None:
    files = upload(one, folder)
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(create, one, "race", files, system=f"number {n}") for n in range(4)]
        for future in made:
            future.result(60)
    assert shown(one, "race")["system"].startswith("number ")
