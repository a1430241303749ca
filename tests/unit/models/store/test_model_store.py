"""The store: a model is there whole or not at all, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from tests.support.checkpoints import SMOLLM2, write_checkpoint
from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.errors import BadInput, HostProblem, ModelNotFound, Unavailable
from vllamad.models.store import manifests, model_store
from vllamad.models.store.manifests import list_manifests, read_manifest

NAME = parse_model_name("smollm2:135m")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def added(models: Path, name: str = "smollm2:135m", **files: str) -> manifests.Manifest:
    folder = write_checkpoint(models.parent / "made", SMOLLM2, **files)
    return model_store.add_model(models, parse_model_name(name), folder, source="a test")


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_added_model_is_read_back(models):
    manifest = added(models)
    assert read_manifest(models, NAME) == manifest
    assert manifest.name == "registry.ollama.ai/library/smollm2:135m"
    assert [file.path for file in manifest.files] == ["config.json", "model.safetensors"]


def test_an_added_models_files_are_moved_hashed_and_readable_by_all(models):
    folder = write_checkpoint(models.parent / "made")
    (folder / "model.safetensors").chmod(0o600)
    manifest = model_store.add_model(models, NAME, folder, source="a test")
    assert not folder.exists()
    for file in manifest.files:
        path = models / manifest.folder / file.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_hashing_tells_how_far_it_is(models):
    seen: list[tuple[str, int, int]] = []
    folder = write_checkpoint(models.parent / "made")
    size = (folder / "config.json").stat().st_size
    model_store.add_model(models, NAME, folder, source="", progress=lambda *step: seen.append(step))
    assert ("config.json", size, size) in seen


def test_a_name_is_found_in_any_case(models):
    manifest = added(models, "SmolLM2:135M")
    assert read_manifest(models, NAME) == manifest


def test_a_name_in_another_case_replaces_the_first_and_keeps_its_spelling(models):
    added(models, "SmolLM2:135M")
    second = added(models, "smollm2:135m", LICENSE_txt="new")
    assert second.name.endswith("/SmolLM2:135M")
    assert list_manifests(models).manifests == (second,)


def test_an_unknown_name_is_not_found(models):
    with pytest.raises(ModelNotFound, match="model 'smollm2:135m' not found"):
        read_manifest(models, NAME)


def test_a_name_too_long_for_the_disk_is_not_found(models):
    with pytest.raises(ModelNotFound):
        read_manifest(models, parse_model_name("h" * 300 + "/n/m"))


def test_the_same_files_from_the_same_place_have_one_digest(models):
    assert added(models, "a").digest == added(models, "b").digest
    assert added(models, "c", LICENSE_txt="x").digest != added(models, "a").digest


def test_adding_again_leaves_nothing_of_the_old_files(models):
    first = added(models)
    second = added(models, LICENSE_txt="new")
    assert not (models / first.folder).exists()
    assert read_manifest(models, NAME) == second


def test_nothing_is_listed_in_a_store_that_is_not_there(models):
    assert list_manifests(models) == ((), ())


def test_a_manifest_that_is_none_is_reported_and_the_others_are_listed(models):
    good = added(models)
    bad = models / "manifests/registry.ollama.ai/library/bad/latest.json"
    bad.parent.mkdir()
    bad.write_text("{")
    listing = list_manifests(models)
    assert listing.manifests == (good,)
    assert listing.problems == (
        "cannot use manifests/registry.ollama.ai/library/bad/latest.json: it is not a manifest",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("name", "registry.ollama.ai/library/other:135m"),
        ("name", "../x"),
        ("digest", "sha256:" + "0" * 64),
        ("digest", "A" * 64),
        ("folder", "../../etc"),
        ("folder", "/etc"),
        ("folder", "manifests"),
        ("files", [{"path": "../../../x", "size": 1, "sha256": "0"}]),
        ("files", 7),
    ],
)
def test_a_manifest_that_was_tampered_with_is_not_used(models, field, value):
    added(models)
    path = manifests.manifest_path(models, NAME)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    listing = list_manifests(models)
    assert listing.manifests == ()
    assert len(listing.problems) == 1


def test_a_model_with_a_missing_file_is_not_listed(models):
    manifest = added(models)
    (models / manifest.folder / "config.json").unlink()
    assert list_manifests(models) == ((), ("cannot use smollm2:135m: config.json is missing",))
    with pytest.raises(HostProblem):
        read_manifest(models, NAME)


def test_a_model_with_a_short_file_is_not_listed(models):
    manifest = added(models)
    os.truncate(models / manifest.folder / "model.safetensors", 5)
    size = manifest.files[1].size
    assert list_manifests(models).problems == (
        f"cannot use smollm2:135m: model.safetensors has 5 bytes, not {size}",
    )


def test_a_draft_left_by_a_crash_is_no_manifest(models):
    manifest = added(models)
    path = manifests.manifest_path(models, NAME)
    path.with_name(".135m.json").write_text("{")
    assert list_manifests(models) == ((manifest,), ())


def remove(models: Path, name: ModelName) -> None:
    model_store.discard_snapshot(models, model_store.remove_name(models, name).folder)


def test_a_removed_model_leaves_no_file(models):
    added(models)
    remove(models, NAME)
    assert files_below(models / "hub") == []
    assert files_below(models / "manifests") == []
    with pytest.raises(ModelNotFound):
        remove(models, NAME)


def test_a_model_that_is_not_whole_can_still_be_removed(models):
    manifest = added(models)
    (models / manifest.folder / "config.json").unlink()
    remove(models, NAME)
    assert files_below(models / "hub") == []


def test_removing_one_of_two_names_keeps_the_files_for_the_other(models):
    manifest = added(models)
    other = manifests.write_manifest(
        models, replace_name(manifest, "registry.ollama.ai/library/copy:latest")
    )
    remove(models, NAME)
    assert list_manifests(models) == ((other,), ())


def replace_name(manifest: manifests.Manifest, name: str) -> manifests.Manifest:
    return manifests.Manifest(
        name=name, source=manifest.source, revision=manifest.revision, folder=manifest.folder,
        files=manifest.files, digest=manifest.digest, created=manifest.created,
    )  # fmt: skip


def test_blobs_are_removed_with_the_last_snapshot_that_links_to_them(models):
    repository = models / "hub/models--org--repo"
    for revision, blobs in (("one", ("shared", "old")), ("two", ("shared", "new"))):
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir(exist_ok=True)
        for blob in blobs:
            (repository / "blobs" / blob).write_text(blob)
            (snapshot / f"{blob}.json").symlink_to(f"../../blobs/{blob}")
        model_store.publish_model(
            models, parse_model_name(f"org/repo:{revision}"), snapshot,
            model_store.hash_files(snapshot), source="org/repo", revision=revision,
        )  # fmt: skip
    remove(models, parse_model_name("org/repo:one"))
    assert files_below(repository / "blobs") == ["new", "shared"]
    assert read_manifest(models, parse_model_name("org/repo:two")).size == len("shared" + "new")


@pytest.mark.parametrize("name", ["a:b", "a\\b"])
def test_a_hostile_file_name_is_refused_and_nothing_becomes_visible(models, name):
    folder = write_checkpoint(models.parent / "made")
    (folder / name).write_text("x")
    with pytest.raises(BadInput):
        model_store.add_model(models, NAME, folder, source="a test")
    assert folder.exists()
    assert list_manifests(models) == ((), ())


@pytest.mark.parametrize("target", ["config.json", "/etc", "/etc/hostname", "nowhere"])
def test_a_link_in_an_added_folder_is_refused(models, target):
    folder = write_checkpoint(models.parent / "made")
    (folder / "link").symlink_to(target)
    with pytest.raises(BadInput, match="link is a link"):
        model_store.add_model(models, NAME, folder, source="a test")


def test_an_empty_folder_is_refused(models):
    (models.parent / "made").mkdir()
    with pytest.raises(BadInput, match="it holds no files"):
        model_store.add_model(models, NAME, models.parent / "made", source="a test")


def test_a_missing_folder_is_refused(models):
    with pytest.raises(HostProblem):
        model_store.add_model(models, NAME, models.parent / "nowhere", source="a test")


def test_two_cannot_change_one_repository_at_once(models):
    folder = write_checkpoint(models.parent / "made")
    repository = model_store.repository_folder("library", "smollm2")
    with (
        model_store.repository_lock(models, repository),
        pytest.raises(Unavailable, match="is going on"),
    ):
        model_store.add_model(models, NAME, folder, source="a test")
    model_store.add_model(models, NAME, folder, source="a test")


def test_a_store_that_cannot_be_written_is_a_host_problem(models):
    models.write_text("in the way")
    folder = write_checkpoint(models.parent / "made")
    with pytest.raises(HostProblem, match="cannot lock the model store"):
        model_store.add_model(models, NAME, folder, source="a test")
