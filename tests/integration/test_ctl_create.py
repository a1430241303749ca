"""Promises of `vllamactl create`: what a Modelfile says is what the model is."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.checkpoints import SMOLLM2, write_checkpoint, write_safetensors
from tests.support.daemon import Daemon, daemon, fake_config, fake_home

pytestmark = pytest.mark.integration

Q = "model.layers.0.self_attn.q_proj"
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("making"), ["test"])
    with daemon(home, config=fake_config()) as running:
        yield running


def written(folder: Path, text: str) -> str:
    path = folder / "Modelfile"
    path.write_text(text)
    return str(path)


def test_a_modelfile_becomes_a_model(one: Daemon, tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'FROM test\nSYSTEM """Be terse.\nVery."""\nPARAMETER temperature 0.5\nPARAMETER stop END\n'
        "MESSAGE user hi\nMESSAGE assistant ho\nLICENSE mine\nREQUIRES 0.14.0\n",
    )
    assert one.ctl("create", "made", "-f", file).startswith("✓ created made in ")
    shown = one.http.post("/api/show", json={"model": "made"}).json()
    assert shown["system"] == "Be terse.\nVery."
    assert shown["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
    ]
    assert {line.split()[0] for line in shown["parameters"].splitlines()} >= {"stop", "temperature"}
    assert shown["license"] == "mine"
    assert one.chat("made").json()["message"]["content"] == PARIS


def test_what_it_shows_makes_it_again(one: Daemon, tmp_path: Path) -> None:
    one.ctl("create", "first", "-f", written(tmp_path, "FROM test\nSYSTEM \"Be 'terse'.\"\n"))
    modelfile = one.http.post("/api/show", json={"model": "first"}).json()["modelfile"]
    one.ctl("create", "again", "-f", written(tmp_path, modelfile))
    assert one.http.post("/api/show", json={"model": "again"}).json()["system"] == "Be 'terse'."


def test_a_folder_is_uploaded(one: Daemon, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "ck", SMOLLM2, tokenizer_json={})
    (folder / "training.bin").write_bytes(b"no part of it")
    last = one.ctl("create", "--json", "mine", "-f", written(tmp_path, "FROM ./ck\n")).splitlines()
    assert json.loads(last[-1])["event"] == "done"
    assert any("uploading model.safetensors" in line for line in last)
    assert one.chat("mine").json()["message"]["content"] == PARIS
    again = one.ctl("create", "--json", "mine2", "-f", written(tmp_path, "FROM ./ck\n"))
    assert "uploading" not in again, "what is there is not sent again"


def test_an_adapter_is_uploaded(one: Daemon, tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", SMOLLM2, tokenizer_json={})
    write_safetensors(base / "model.safetensors", {f"{Q}.weight": ("BF16", (8, 6))})
    one.ctl("create", "base", "-f", written(tmp_path, "FROM ./base\n"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"})
    )
    write_safetensors(
        adapter / "adapter_model.safetensors",
        {
            f"base_model.model.{Q}.lora_A.weight": ("F32", (4, 6)),
            f"base_model.model.{Q}.lora_B.weight": ("F32", (8, 4)),
        },
    )
    one.ctl("create", "tuned", "-f", written(tmp_path, "FROM base\nADAPTER ./adapter\n"))
    shown = one.http.post("/api/show", json={"model": "tuned"}).json()
    assert "ADAPTER sha256:" in shown["modelfile"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM test\nPARAMETER top_k many\n", "Modelfile: line 2: cannot set top_k to 'many'"),
        ("SYSTEM x\n", "Modelfile: no FROM line"),
        ("FROM test\nADAPTER ./nowhere\n", "nowhere: it is not a file"),
        ("FROM ./empty\n", "it holds no files of a model"),
        ("FROM test\nTEMPLATE {{ .Prompt }}\n", "only Jinja chat templates are supported"),
        ("FROM test\nDRAFT x\n", "cannot use DRAFT"),
        ("FROM ./m.gguf\n", "unknown type"),
        ("FROM no/such-model-anywhere:x\n", "✗ "),
    ],
)
def test_what_cannot_be_made_is_refused(one: Daemon, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert told in one.ctl("create", "x", "-f", written(tmp_path, text), code=1)


def test_a_modelfile_that_is_not_there_is_named(one: Daemon) -> None:
    said = one.ctl("create", "x", "-f", "/nowhere/Modelfile", code=1)
    assert "✗ cannot read /nowhere/Modelfile: no such file or directory" in said
