"""What other tools have downloaded is found where it lies, and nothing else in there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkpoints import bring, write_checkpoint
from vllamad.config.settings import ModelSettings
from vllamad.core.model_name import parse_model_name
from vllamad.models import installed
from vllamad.models.hub import other_caches
from vllamad.models.installed import InstalledModels
from vllamad.models.store import model_store

OTHER = "b" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def looking(tmp_path: Path, *places: Path, settings: dict[str, ModelSettings] | None = None):
    return InstalledModels(tmp_path / "models", settings or {}, caches=places)


def test_a_model_in_a_cache_is_listed_and_found_where_it_lies(tmp_path, cache):
    snapshot = bring(cache, "Org/Tiny-1.5B")
    models = looking(tmp_path, cache)
    (found,) = models.all()
    assert (found.name, found.folder, found.stored) == ("Org/Tiny-1.5B:latest", snapshot, False)
    assert models.find("org/tiny-1.5b") is found
    assert models.cached("org/tiny-1.5b") is found
    assert not (tmp_path / "models").exists()


def test_a_cached_model_has_one_name_however_it_is_asked_for(tmp_path, cache):
    bring(cache, "Org/Tiny-1.5B")
    found = looking(tmp_path, cache).find("ORG/tiny-1.5b")
    assert found is not None
    assert found.name == "Org/Tiny-1.5B:latest"


def test_a_branch_or_tag_is_asked_for_as_a_tag(tmp_path, cache):
    bring(cache, "org/tiny")
    second = bring(cache, "org/tiny", OTHER, ref="v2")
    found = looking(tmp_path, cache).find("org/tiny:v2")
    assert found is not None
    assert found.folder == second


def test_what_is_installed_wins_over_what_is_cached(tmp_path, cache):
    bring(cache, "org/tiny")
    made = write_checkpoint(tmp_path / "own")
    model_store.add_model(tmp_path / "models", parse_model_name("org/tiny"), made, source="test")
    models = looking(tmp_path, cache)
    (listed,) = models.all()
    found = models.find("org/tiny")
    assert found is not None
    assert listed.stored
    assert found.stored


def test_of_two_caches_the_first_wins(tmp_path, cache):
    first = bring(cache, "org/tiny")
    bring(tmp_path / "second", "org/tiny", OTHER)
    found = looking(tmp_path, cache, tmp_path / "second").find("org/tiny")
    assert found is not None
    assert found.folder == first


def dataset(cache: Path) -> None:
    (cache / "datasets--org--data" / "refs").mkdir(parents=True)


def no_weights(cache: Path) -> None:
    (bring(cache, "org/tiny") / "model.safetensors").unlink()


def broken_link(cache: Path) -> None:
    (bring(cache, "org/tiny") / "model.safetensors").resolve().unlink()


def no_snapshot(cache: Path) -> None:
    bring(cache, "org/tiny").rename(cache / "elsewhere")


def a_ref_that_leads_out(cache: Path) -> None:
    bring(cache, "org/tiny")
    (cache / "models--org--tiny/refs/main").write_text("../../../../etc")


def a_name_nobody_could_type(cache: Path) -> None:
    bring(cache, "org/-tiny")


@pytest.mark.parametrize(
    "arrange",
    [dataset, no_weights, broken_link, no_snapshot, a_ref_that_leads_out, a_name_nobody_could_type],
)
def test_what_is_no_whole_model_is_passed_over_in_silence(tmp_path, cache, arrange):
    arrange(cache)
    models = looking(tmp_path, cache)
    assert models.all() == []
    assert models.problems() == []
    assert models.find("org/tiny") is None


def test_what_became_whole_meanwhile_is_seen(tmp_path, cache):
    weights = bring(cache, "org/tiny") / "model.safetensors"
    aside = weights.rename(tmp_path / "aside")
    models = looking(tmp_path, cache)
    assert models.all() == []
    aside.rename(weights)
    assert [found.name for found in models.all()] == ["org/tiny:latest"]


def test_neither_a_model_nor_what_is_none_is_read_twice(tmp_path, cache, monkeypatch):
    bring(cache, "org/tiny")
    (bring(cache, "org/half", OTHER) / "model.safetensors").unlink()
    models = looking(tmp_path, cache)
    models.all()
    monkeypatch.setattr(installed, "read_facts", lambda _: pytest.fail("it was read again"))
    assert [found.name for found in models.all()] == ["org/tiny:latest"]
    assert models.find("org/half") is None


def test_a_cache_that_is_not_there_is_empty(tmp_path):
    assert list(other_caches.list_cached([tmp_path / "none"])) == []
    assert looking(tmp_path, tmp_path / "none").all() == []


def test_a_copy_of_a_cached_model_stays_as_long_as_it_does(tmp_path, cache):
    from vllamad.core.overlay import EMPTY_OVERLAY
    from vllamad.models.store.derived import derive_model

    snapshot = bring(cache, "org/tiny")
    models = looking(tmp_path, cache)
    base = models.find("org/tiny")
    assert base is not None
    derive_model(tmp_path / "models", base, parse_model_name("pet"), EMPTY_OVERLAY)
    pet = models.find("pet")
    assert pet is not None
    assert (pet.folder, pet.stored, pet.worker_name) == (snapshot, True, "org/tiny:latest")
    snapshot.rename(cache / "gone")
    assert [problem for problem in models.problems() if "nor in a cache" in problem]
