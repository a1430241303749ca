"""Verify and prune: every file against its manifest, and what no manifest needs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.checkpoints import SMOLLM2, write_checkpoint
from vllamad.core.model_name import parse_model_name
from vllamad.core.overlay import Adapter, Overlay
from vllamad.errors import HostProblem, ModelNotFound
from vllamad.models.installed import InstalledModels
from vllamad.models.store import model_store, pruning, verification
from vllamad.models.store.derived import derive_model
from vllamad.models.store.manifests import Manifest
from vllamad.protocol.control import Progress


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def added(models: Path, name: str, **files: str) -> Manifest:
    folder = write_checkpoint(models.parent / "made", SMOLLM2, **files)
    return model_store.add_model(models, parse_model_name(name), folder, source="a test")


def copied(models: Path, base: str, name: str, overlay: Overlay) -> None:
    found = InstalledModels(models, {}).find(base)
    assert found is not None
    derive_model(models, found, parse_model_name(name), overlay)


def verified(models: Path, name: str = "") -> list[tuple[str, str, str]]:
    """What is bad: model, file and why."""
    steps: list[Progress] = []
    verification.verify_store(models, parse_model_name(name) if name else None, steps.append)
    done = [step.completed for step in steps]
    assert done == sorted(done)
    assert all(step.completed <= step.total for step in steps)
    return [(step.model, step.file, step.problem) for step in steps if step.problem]


def pruned(models: Path, *, dry_run: bool = False) -> dict[str, tuple[str, int]]:
    """What no model needed: path, why, and its size."""
    steps: list[Progress] = []
    pruning.prune_store(models, steps.append, dry_run=dry_run)
    return {step.file: (step.problem, step.total) for step in steps}


def place(models: Path, manifest: Manifest) -> Path:
    return models / manifest.folder


def test_whole_models_have_nothing_bad(models: Path) -> None:
    added(models, "a")
    added(models, "b", note_txt="b")
    assert verified(models) == []
    assert verified(models, "a") == []


def test_each_bad_file_is_told_with_its_reason(models: Path) -> None:
    one = place(models, added(models, "a"))
    two = place(models, added(models, "b", note_txt="b", more_txt="m"))
    flip(one / "model.safetensors")
    (two / "config.json").unlink()
    (two / "note.txt").write_text("longer")
    (two / "more.txt").unlink()
    (two / "more.txt").mkdir()
    bad = verified(models)
    assert bad[:3] == [
        ("a:latest", "model.safetensors", "has other content than it should"),
        ("b:latest", "config.json", "is missing"),
        ("b:latest", "more.txt", bad[2][2]),
    ]
    assert bad[3] == ("b:latest", "note.txt", "has 6 bytes, not 1")
    assert verified(models, "b") == bad[1:]


def flip(path: Path) -> None:
    """Change the last byte, and nothing that shows."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_file_of_two_models_is_read_once_and_bad_for_both(models: Path) -> None:
    manifest = added(models, "a")
    copied(models, "a", "b", Overlay(system="s"))
    flip(place(models, manifest) / "model.safetensors")
    assert [model for model, _, _ in verified(models)] == ["a:latest", "b:latest"]


def test_a_missing_adapter_is_bad(models: Path) -> None:
    added(models, "a")
    copied(models, "a", "tuned", Overlay(adapter=Adapter(config="0" * 64, weights="1" * 64)))
    assert [(model, problem) for model, _, problem in verified(models)] == [
        ("tuned:latest", "is missing"),
        ("tuned:latest", "is missing"),
    ]


def test_a_manifest_that_cannot_be_read_is_bad(models: Path) -> None:
    added(models, "a")
    (path,) = (models / "manifests").rglob("*.json")
    path.write_text("{")
    ((model, file, problem),) = verified(models)
    assert (model, file) == ("", str(path.relative_to(models)))
    assert "is not a manifest" in problem


def test_a_model_that_is_not_there_cannot_be_verified(models: Path) -> None:
    with pytest.raises(ModelNotFound):
        verified(models, "nothing")


def test_an_orderly_store_has_nothing_to_prune(models: Path) -> None:
    added(models, "a")
    copied(models, "a", "b", Overlay())
    assert pruned(models) == {}
    assert verified(models) == []


@pytest.fixture
def cache(models: Path) -> Path:
    """A repository with a revision in use, one that is not, and half a file of a pull."""
    manifest = added(models, "org/repo")
    repository = model_store.repository_of(models, manifest.folder)
    blobs = repository / "blobs"
    blobs.mkdir()
    config = place(models, manifest) / "config.json"
    shutil.move(config, blobs / "kept")
    config.symlink_to(blobs / "kept")
    old = repository / "snapshots" / "old"
    old.mkdir()
    (old / "own.txt").write_text("four")
    (blobs / "gone").write_bytes(b"x" * 100)
    (old / "model.safetensors").symlink_to(blobs / "gone")
    (old / "config.json").symlink_to(blobs / "kept")
    (blobs / "half.incomplete").write_bytes(b"y" * 10)
    return repository


def test_what_no_model_needs_is_told_and_gone(models: Path, cache: Path) -> None:
    hub = f"hub/{cache.name}"
    expected = {
        f"{hub}/snapshots/old": ("a revision that no model uses", 4),
        f"{hub}/blobs/gone": ("a file that no model uses", 100),
        f"{hub}/blobs/half.incomplete": ("part of an unfinished pull", 10),
    }
    assert pruned(models, dry_run=True) == expected
    assert (cache / "snapshots/old/own.txt").exists(), "a dry run touches nothing"
    assert pruned(models) == expected
    assert pruned(models) == {}
    assert [path.name for path in (cache / "blobs").iterdir()] == ["kept"]
    assert verified(models) == []


def test_a_repository_no_model_is_of_goes_as_a_whole(models: Path, cache: Path) -> None:
    model_store.remove_name(models, parse_model_name("org/repo"))
    pruned(models)
    assert not cache.exists()


def test_the_files_of_a_damaged_model_stay(models: Path, cache: Path) -> None:
    (models / "hub" / cache.name / "blobs" / "kept").unlink()
    assert f"hub/{cache.name}/snapshots/old" in pruned(models)
    assert len(list((cache / "snapshots").iterdir())) == 1


def test_what_is_being_pulled_is_left_alone(models: Path, cache: Path) -> None:
    with model_store.repository_lock(models, cache.name):
        assert pruned(models) == {}
    assert (cache / "blobs" / "half.incomplete").exists()


def test_nothing_is_pruned_while_a_manifest_cannot_be_read(models: Path, cache: Path) -> None:
    bad = models / "manifests" / "h" / "n" / "m" / "t.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    with pytest.raises(HostProblem, match=r"cannot prune: cannot use manifests/h/n/m/t\.json"):
        pruned(models)
    assert (cache / "blobs" / "gone").exists()


def test_old_uploads_go_unless_a_model_was_made_of_them(models: Path) -> None:
    folder = models / "blobs"
    folder.mkdir(parents=True)
    for name in ("old", "new", "used"):
        (folder / name).write_bytes(b"12345")
    os.link(folder / "used", models / "second")
    past = time.time() - pruning.FRESH - 60
    for name in ("old", "used"):
        os.utime(folder / name, (past, past))
    assert pruned(models) == {"blobs/old": ("an upload that no model was made of", 5)}
    assert sorted(path.name for path in folder.iterdir()) == ["new", "used"]
