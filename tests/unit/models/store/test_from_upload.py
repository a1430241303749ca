"""A checkpoint out of uploaded blobs: whole or not at all, and nothing but second names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.adapters import adapter, base_of
from tests.support.checkpoints import SMOLLM2, write_checkpoint, write_safetensors
from vllamad.core.model_name import parse_model_name
from vllamad.core.overlay import EMPTY_OVERLAY, Overlay
from vllamad.errors import BadInput, HostProblem, VllamadError
from vllamad.models.installed import InstalledModels
from vllamad.models.store import from_upload, model_store, upload_blobs
from vllamad.models.store.manifests import Manifest

KIND = Overlay(system="Be kind.", licenses=("MIT",))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models/blobs").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(
        tmp_path / "made", SMOLLM2, tokenizer_json={}, chat_template_jinja="{{ messages }}"
    )


def upload(models: Path, folder: Path) -> dict[str, str]:
    """Every file below `folder` as a blob: its name to its SHA-256."""
    files: dict[str, str] = {}
    for path in folder.glob("**/*"):
        if path.is_file():
            content = path.read_bytes()
            name = str(path.relative_to(folder))
            files[name] = hashlib.sha256(content).hexdigest()
            upload_blobs.blob_path(models, f"sha256:{files[name]}").write_bytes(content)
    return files


def assemble(
    models: Path, files: Mapping[str, str], name: str = "mine", overlay: Overlay = EMPTY_OVERLAY
) -> Manifest:
    made = from_upload.plan_manifest(models, parse_model_name(name), files, overlay)
    with model_store.repository_lock(models, model_store.repository_of(models, made.folder).name):
        from_upload.lay_out_files(models, made)
    return model_store.replace_manifest(models, parse_model_name(name), lambda: made).now


def refusal(models: Path, files: Mapping[str, str]) -> str:
    """Why `files` make no model; nothing is left of the attempt."""
    with pytest.raises(VllamadError) as refused:
        assemble(models, files)
    assert isinstance(refused.value, BadInput)
    assert InstalledModels(models, {}).all() == []
    assert [path for path in (models / "hub").glob("**/*") if path.is_file()] == []
    return refused.value.message


def test_an_adapter_may_come_with_the_files(models: Path, tmp_path: Path) -> None:
    folder = base_of(tmp_path / "made", SMOLLM2)
    (folder / "tokenizer.json").write_text("{}")
    overlay = Overlay(adapter=adapter(models))
    assemble(models, upload(models, folder), overlay=overlay)
    installed_models = InstalledModels(models, {})
    found = installed_models.find("mine")
    assert found is not None
    assert found.overlay == overlay
    assert len(installed_models.adapters(found)) == 1


def test_what_was_uploaded_is_a_model_with_all_that_was_said_of_it(
    models: Path, folder: Path
) -> None:
    files = upload(models, folder)
    manifest = assemble(models, files, overlay=KIND)
    found = InstalledModels(models, {}).find("mine")
    assert found is not None
    assert found.facts.hidden_size == SMOLLM2["hidden_size"]
    assert found.facts.chat_template == "{{ messages }}"
    assert (found.overlay, found.license, found.base) == (KIND, "MIT", "")
    assert found.size == sum(path.stat().st_size for path in folder.iterdir())
    assert {file.path: file.sha256 for file in manifest.files} == files


def test_its_files_are_second_names_that_everybody_may_read(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    place = models / assemble(models, files).folder
    assert "config.json" in files
    for name, digest in files.items():
        status = (place / name).stat()
        assert status.st_ino == upload_blobs.blob_path(models, f"sha256:{digest}").stat().st_ino
        assert status.st_mode & 0o777 == 0o644


def test_the_same_files_are_the_same_model_under_any_name(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    assert assemble(models, files).digest == assemble(models, files, "other/one:x").digest
    (folder / "tokenizer.json").write_text("[]")
    assert assemble(models, upload(models, folder)).digest != assemble(models, files, "x").digest


def test_making_it_again_leaves_its_files_where_they_are(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    place = models / assemble(models, files).folder
    before = place.stat().st_ino
    assemble(models, files, overlay=KIND)
    assert place.stat().st_ino == before
    (place / "tokenizer.json").unlink()
    assemble(models, files)
    assert (place / "tokenizer.json").exists(), "what was damaged is made whole"


def test_what_no_model_needs_is_left_out(models: Path, folder: Path) -> None:
    more = {
        "modeling_x.py": "import os", "pytorch_model.bin": "x", "onnx/config.json": "{}",
        ".cache.json": "{}", "consolidated.safetensors": "x",
    }  # fmt: skip
    for name, text in more.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text("{}")
    manifest = assemble(models, upload(models, folder))
    assert [file.path for file in manifest.files] == [
        "1_Pooling/config.json", "chat_template.jinja", "config.json", "model.safetensors",
        "tokenizer.json",
    ]  # fmt: skip


def test_shards_are_those_of_the_index(models: Path, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    write_safetensors(folder / "model-2-of-2.safetensors", {"head.weight": ("BF16", (8, 4))})
    shards = {"embed.weight": "model-1-of-2.safetensors", "head.weight": "model-2-of-2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    files = upload(models, folder)
    del files["model-2-of-2.safetensors"]
    assert (
        refusal(models, files) == "cannot find model-2-of-2.safetensors, one of 2 files of weights"
    )
    assemble(models, upload(models, folder))
    found = InstalledModels(models, {}).find("mine")
    assert found is not None
    assert found.facts.parameter_count == 16 * 4 + 8 * 4


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("config.json", "cannot find config.json among the files"),
        ("tokenizer.json", "cannot find a tokenizer among the files: tokenizer.json or the like"),
        ("model.safetensors", "cannot find weights: there is no .safetensors file"),
    ],
)
def test_what_is_missing_is_named(models: Path, folder: Path, missing: str, text: str) -> None:
    files = upload(models, folder)
    del files[missing]
    assert refusal(models, files) == text


def test_a_blob_that_was_not_uploaded_is_named(models: Path, folder: Path) -> None:
    files = upload(models, folder) | {"tokenizer.json": "0" * 64}
    assert refusal(models, files) == f'blob "sha256:{"0" * 64}" not found'


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("config.json", b"[]", "cannot use config.json: it is not a JSON object"),
        ("model.safetensors", b"GGUF", "cannot use model.safetensors: its header does not fit"),
        ("model.safetensors", b"\xff" * 64, "cannot use model.safetensors: its header does not"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}more",
         "cannot use model.safetensors: its tensors fill 0 of 4 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_is_called_is_named(
    models: Path, folder: Path, name: str, content: bytes, text: str
) -> None:
    (folder / name).write_bytes(content)
    assert refusal(models, upload(models, folder)).startswith(text)


def test_names_that_lead_out_are_refused_here_too(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    assert "leads out of" in refusal(models, files | {"../x.json": files["config.json"]})


def test_what_a_killed_one_left_is_removed_by_the_next(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    left = models / "hub/models--library--mine/snapshots/.left"
    left.mkdir(parents=True)
    os.link(upload_blobs.blob_path(models, f"sha256:{files['config.json']}"), left / "config.json")
    assemble(models, files)
    assert not left.exists()


def test_a_disk_that_says_no_is_told_of(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    made = from_upload.plan_manifest(models, parse_model_name("mine"), files, EMPTY_OVERLAY)
    upload_blobs.blob_path(models, f"sha256:{files['config.json']}").unlink()  # swept in between
    with pytest.raises(HostProblem, match="cannot store the model: No such file"):
        from_upload.lay_out_files(models, made)


def test_a_blob_goes_with_the_last_model_that_is_made_of_it(models: Path, folder: Path) -> None:
    files = upload(models, folder)
    place = models / assemble(models, files).folder
    lonely = upload_blobs.blob_path(models, f"sha256:{'1' * 64}")
    lonely.write_bytes(b"x")
    upload_blobs.release_blobs(models, files.values())
    assert len(list((models / "blobs").iterdir())) == len(files) + 1
    for file in place.iterdir():
        file.unlink()
    upload_blobs.release_blobs(models, [*files.values(), "2" * 64])
    assert list((models / "blobs").iterdir()) == [lonely]
