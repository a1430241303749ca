"""The installed models: finds models as users name them, and reads nothing twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.checkpoints import QWEN2, SMOLLM2, write_checkpoint
from vllamad.config.settings import ModelSettings
from vllamad.core.model_name import parse_model_name
from vllamad.core.overlay import EMPTY_OVERLAY
from vllamad.errors import BadInput, HostProblem
from vllamad.models import installed as catalog_module
from vllamad.models.checkpoint.metadata import read_facts
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.models.store import model_store
from vllamad.models.store.derived import derive_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose files were read, in order."""
    seen: list[str] = []

    def counted(folder: Path):
        seen.append(folder.name)
        return read_facts(folder)

    monkeypatch.setattr(catalog_module, "read_facts", counted)
    return seen


def install(models: Path, name: str = "smollm2:135m", source: str = "a test"):
    folder = write_checkpoint(models.parent / "made", SMOLLM2)
    return model_store.add_model(
        models, parse_model_name(name), folder, source=source, license="apache-2.0"
    )


def test_a_link_in_circles_hides_its_own_model_and_no_other(models):
    install(models)
    bad = models / install(models, "bad:1", source="another").folder
    (bad / "loop").symlink_to("loop")
    installed_models = InstalledModels(models, {})
    assert [one.name for one in installed_models.all()] == ["smollm2:135m"]
    with pytest.raises(HostProblem, match="cannot read loop: Too many levels"):
        installed_models.find("bad:1")


@pytest.mark.parametrize(
    "text",
    [
        "smollm2:135m",
        "SmolLM2:135M",
        "library/smollm2:135m",
        "registry.ollama.ai/library/SMOLLM2:135m",
    ],
)
def test_an_installed_model_is_found_under_every_spelling_of_its_name(models, text):
    manifest = install(models)
    found = InstalledModels(models, {}).find(text)
    assert found is not None
    assert (found.name, found.canonical) == ("smollm2:135m", manifest.name)
    assert (found.digest, found.size) == (manifest.digest, manifest.size)
    assert found.capabilities == ("completion",)
    assert found.license == "apache-2.0"


def test_the_latest_tag_may_be_left_out(models):
    install(models, "tiny")
    found = InstalledModels(models, {}).find("tiny")
    assert found is not None
    assert found.name == "tiny:latest"


def test_an_unknown_name_finds_nothing(models):
    assert InstalledModels(models, {}).find("nope") is None


def test_a_bad_name_is_refused(models):
    with pytest.raises(BadInput, match="invalid model name"):
        InstalledModels(models, {}).find("a b")


def test_all_lists_the_newest_first(models, monkeypatch):
    for moment, name in enumerate(["old", "middle", "new"]):
        monkeypatch.setattr(model_store.time, "time", lambda moment=moment: 1000.0 + moment)
        install(models, name)
    names = [found.name for found in InstalledModels(models, {}).all()]
    assert names == ["new:latest", "middle:latest", "old:latest"]


def test_settings_go_with_their_model_whatever_the_case(models):
    install(models)
    settings = ModelSettings(context_length=512)
    found = InstalledModels(models, {"SmolLM2:135M": settings}).find("smollm2:135m")
    assert found is not None
    assert found.settings is settings


def test_a_folder_in_the_configuration_is_a_model(models, tmp_path):
    folder = write_checkpoint(tmp_path / "mine", QWEN2, LICENSE_txt="MIT")
    installed_models = InstalledModels(models, {"mine": ModelSettings(path=str(folder))})
    found = installed_models.find("Mine:Latest")
    assert found is not None
    assert found.folder == folder
    assert found.size == sum(path.stat().st_size for path in folder.iterdir())
    assert len(found.digest) == 64
    assert found.license == "MIT"
    assert installed_models.all() == [found]


def test_a_folder_in_the_configuration_stands_before_an_installed_model(models, tmp_path):
    install(models)
    folder = write_checkpoint(tmp_path / "mine", QWEN2)
    installed_models = InstalledModels(models, {"SmolLM2:135m": ModelSettings(path=str(folder))})
    assert [found.folder for found in installed_models.all()] == [folder]
    found = installed_models.find("smollm2:135m")
    assert found is not None
    assert found.facts.model_type == "qwen2"


def test_a_changed_folder_has_another_digest(models, tmp_path):
    folder = write_checkpoint(tmp_path / "mine", QWEN2)
    installed_models = InstalledModels(models, {"mine": ModelSettings(path=str(folder))})
    before = installed_models.find("mine")
    os.utime(folder / "model.safetensors", (5, 5))
    after = installed_models.find("mine")
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


def test_nothing_is_read_twice(models, reads):
    manifest = install(models)
    installed_models = InstalledModels(models, {})
    for _ in range(3):
        installed_models.all()
        installed_models.find("smollm2:135m")
    assert reads == [Path(manifest.folder).name]


def test_no_file_is_opened_twice_whatever_is_asked_and_however_many_names_it_has(
    models, monkeypatch
):
    opened: list[str] = []
    real_open = os.open

    def counted(path: str, *more: int) -> int:
        opened.append(str(path))
        return real_open(path, *more)

    for name in ("a", "b"):
        install(models, name, source=name)
    derive_model(models, found_in(models, "a"), parse_model_name("pet"), EMPTY_OVERLAY)
    monkeypatch.setattr(os, "open", counted)
    installed_models = InstalledModels(models, {})
    for _ in range(2):
        assert {one.name for one in installed_models.all()} == {
            "a:latest",
            "b:latest",
            "pet:latest",
        }
        installed_models.find("pet")
        installed_models.find("A")
    installed_models.configure({}, None)
    installed_models.all()
    weights = [path for path in opened if path.endswith("model.safetensors")]
    assert len(weights) == len(set(weights)) == 2


def found_in(models: Path, name: str) -> InstalledModel:
    found = InstalledModels(models, {}).find(name)
    assert found is not None
    return found


def test_a_file_that_changed_is_read_again(models, reads):
    manifest = install(models)
    installed_models = InstalledModels(models, {})
    installed_models.find("smollm2:135m")
    os.utime(models / manifest.folder / "config.json", (5, 5))
    installed_models.find("smollm2:135m")
    assert len(reads) == 2


def test_a_model_installed_again_is_read_again(models):
    install(models)
    installed_models = InstalledModels(models, {})
    before = installed_models.find("smollm2:135m")
    install(models, source="another place")
    after = installed_models.find("smollm2:135m")
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


def test_a_removed_model_is_gone_at_once(models):
    install(models)
    installed_models = InstalledModels(models, {})
    assert len(installed_models.all()) == 1
    model_store.remove_name(models, parse_model_name("smollm2:135m"))
    assert installed_models.all() == []
    assert installed_models.find("smollm2:135m") is None


def test_a_model_that_lost_a_file_is_a_problem_until_the_file_is_back(models):
    manifest = install(models)
    installed_models = InstalledModels(models, {})
    installed_models.all()
    config = models / manifest.folder / "config.json"
    content = config.read_bytes()
    config.unlink()
    assert installed_models.all() == []
    assert installed_models.problems() == ["cannot use smollm2:135m: config.json is missing"]
    with pytest.raises(HostProblem, match=r"config.json is missing"):
        installed_models.find("smollm2:135m")
    config.write_bytes(content)
    assert len(installed_models.all()) == 1
    assert installed_models.problems() == []


def test_one_bad_model_does_not_hide_the_others(models, tmp_path):
    install(models)
    write_checkpoint(tmp_path / "bad", config_json="{")
    settings = {
        "bad": ModelSettings(path=str(tmp_path / "bad")),
        "gone": ModelSettings(path=str(tmp_path / "gone")),
    }
    installed_models = InstalledModels(models, settings)
    assert [found.name for found in installed_models.all()] == ["smollm2:135m"]
    assert len(installed_models.problems()) == 2


def test_a_configured_name_that_is_none_is_refused(models):
    with pytest.raises(BadInput):
        InstalledModels(models, {"a b": ModelSettings()})


def test_a_glance_says_what_was_just_found(models):
    install(models)
    installed_models = InstalledModels(models, {})
    assert installed_models.cached("smollm2:135m") is None
    found = installed_models.find("smollm2:135m")
    assert found is not None
    assert installed_models.cached("SmolLM2:135M") is found


def test_a_glance_says_nothing_of_what_was_looked_at_long_ago(models):
    install(models)
    now = 100.0
    installed_models = InstalledModels(models, {}, clock=lambda: now)
    installed_models.find("smollm2:135m")
    now += catalog_module.RECENT + 0.1
    assert installed_models.cached("smollm2:135m") is None


def test_a_glance_sees_that_a_model_was_removed_or_installed_again(models):
    install(models)
    installed_models = InstalledModels(models, {})
    installed_models.find("smollm2:135m")
    install(models, source="another place")
    assert installed_models.cached("smollm2:135m") is None
    assert installed_models.find("smollm2:135m") is not None
    model_store.remove_name(models, parse_model_name("smollm2:135m"))
    assert installed_models.cached("smollm2:135m") is None


def test_one_folder_under_two_names_is_two_models(models, tmp_path, reads):
    folder = write_checkpoint(tmp_path / "local", SMOLLM2)
    quick = ModelSettings(path=str(folder), args={"enforce-eager": True})
    installed_models = InstalledModels(
        models, {"plain": ModelSettings(path=str(folder)), "quick": quick}
    )
    for _ in range(2):
        for name in ("plain", "quick"):
            found = installed_models.find(name)
            assert found is not None
            assert found.name == f"{name}:latest"
            assert installed_models.cached(name) is found
    found = installed_models.find("quick")
    assert found is not None
    assert found.settings is quick
    assert {one.name for one in installed_models.all()} == {"plain:latest", "quick:latest"}
    assert reads == ["local"]


def test_other_settings_are_those_of_the_next_look(models, tmp_path):
    install(models, "tiny")
    installed_models = InstalledModels(models, {"tiny": ModelSettings(context_length=512)})
    assert found(installed_models, "tiny").settings.context_length == 512
    local = write_checkpoint(tmp_path / "local")
    installed_models.configure(
        {"tiny": ModelSettings(keep_alive=1.0), "here": ModelSettings(path=str(local))}, None
    )
    assert installed_models.cached("tiny") is None
    assert found(installed_models, "tiny").settings == ModelSettings(keep_alive=1.0)
    assert found(installed_models, "here").folder == local
    installed_models.configure({}, None)
    assert installed_models.find("here") is None


def found(installed_models: InstalledModels, name: str) -> InstalledModel:
    one = installed_models.find(name)
    assert one is not None
    return one
