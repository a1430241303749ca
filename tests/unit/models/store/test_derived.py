"""Derived models: small manifests over another's files, and what becomes of them without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.adapters import adapter, base_of
from tests.support.checkpoints import CHATML_TEMPLATE, SMOLLM2, write_checkpoint
from vllamad.config.settings import ModelSettings
from vllamad.core.model_name import parse_model_name
from vllamad.core.overlay import EMPTY_OVERLAY, Overlay, Turn
from vllamad.errors import HostProblem, ModelNotFound
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.models.model_info import modelfile_of, parameters, show_response
from vllamad.models.store import lora, manifests, model_store
from vllamad.models.store.derived import derive_model, remove_unused_adapters

KIND = Overlay(system="Be kind.", parameters={"top_k": 3})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = write_checkpoint(tmp_path / "made", SMOLLM2, LICENSE_txt="MIT")
    model_store.add_model(tmp_path / "models", parse_model_name("base"), folder, source="a test")
    return tmp_path / "models"


def find(models: Path, name: str, **settings: ModelSettings) -> InstalledModel:
    found = InstalledModels(models, settings).find(name)
    assert found is not None
    return found


def make(
    models: Path, name: str, overlay: Overlay = KIND, base: str = "base"
) -> model_store.ManifestChange:
    return derive_model(models, find(models, base), parse_model_name(name), overlay)


def test_a_derived_model_has_the_files_of_its_base_and_a_digest_of_its_own(models: Path) -> None:
    make(models, "made")
    base, made = find(models, "base"), find(models, "made")
    assert (made.folder, made.size, made.facts) == (base.folder, base.size, base.facts)
    assert made.digest != base.digest
    assert (made.base, made.worker_name, made.overlay) == ("base:latest", "base:latest", KIND)
    assert (base.base, base.worker_name) == ("", "base:latest")


def test_a_copy_is_the_same_model(models: Path) -> None:
    make(models, "copy", EMPTY_OVERLAY)
    assert find(models, "copy").digest == find(models, "base").digest


def test_what_is_made_of_what_was_made_has_the_same_base(models: Path) -> None:
    make(models, "one")
    make(models, "two", base="one")
    assert find(models, "two").base == "base:latest"


def test_settings_of_its_own_or_a_template_take_a_worker_of_its_own(models: Path) -> None:
    make(models, "set")
    own = ModelSettings(context_length=128)
    assert find(models, "set", set=own).worker_name == "set:latest"
    assert find(models, "set", base=own).settings == own, "else it has those of its base"
    make(models, "styled", Overlay(template=CHATML_TEMPLATE))
    styled = find(models, "styled")
    assert styled.worker_name == "styled:latest"
    assert styled.facts.chat_template == CHATML_TEMPLATE


def test_capabilities_are_what_the_maker_says(models: Path) -> None:
    make(models, "capable", Overlay(capabilities=("completion", "vision")))
    assert find(models, "capable").capabilities == ("completion", "vision")


def test_made_over_its_own_base_it_takes_its_place(models: Path) -> None:
    make(models, "copy", EMPTY_OVERLAY)
    change = make(models, "Base")
    assert change.now.base == ""
    assert change.now.name == "registry.ollama.ai/library/base:latest"
    assert find(models, "base").overlay == KIND
    assert find(models, "copy").overlay == EMPTY_OVERLAY


def test_when_the_base_goes_the_others_go_on_sharing_one_worker(models: Path) -> None:
    for name in ("a", "b", "c"):
        make(models, name)
    gone = model_store.remove_name(models, parse_model_name("base"))
    model_store.discard_snapshot(models, gone.folder)
    shared = {find(models, name).worker_name for name in ("a", "b", "c")}
    assert len(shared) == 1
    assert shared < {"a:latest", "b:latest", "c:latest"}
    for name in ("a", "b", "c"):
        model_store.discard_snapshot(
            models, model_store.remove_name(models, parse_model_name(name)).folder
        )
    assert not (models / gone.folder).exists()


def test_when_the_base_becomes_another_model_the_derived_keeps_its_files(models: Path) -> None:
    make(models, "made")
    folder = find(models, "made").folder
    other = write_checkpoint(models.parent / "other", SMOLLM2, LICENSE_txt="BSD")
    model_store.add_model(models, parse_model_name("base"), other, source="a test")
    made = find(models, "made")
    assert (made.folder, made.license) == (folder, "MIT")
    assert made.worker_name == "made:latest"
    assert find(models, "base").license == "BSD"


def test_a_name_of_a_model_elsewhere_frees_nothing_of_that_model(models: Path) -> None:
    change = make(models, "made")
    assert change.before is None
    assert make(models, "made", EMPTY_OVERLAY).before == change.now


def test_a_model_of_the_configuration_can_be_a_base(models: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "outside", SMOLLM2)
    settings = {"out": ModelSettings(path=str(folder))}
    installed_models = InstalledModels(models, settings)
    out = installed_models.find("out")
    assert out is not None
    assert installed_models.is_configured(parse_model_name("OUT"))
    assert not installed_models.is_configured(parse_model_name("base"))
    derive_model(models, out, parse_model_name("made"), KIND)
    made = installed_models.find("made")
    assert made is not None
    assert (made.folder, made.worker_name, made.stored) == (folder, "out:latest", True)
    derive_model(models, made, parse_model_name("again"), EMPTY_OVERLAY)
    with pytest.raises(HostProblem, match="its base out:latest is neither in the configuration"):
        InstalledModels(models, {}).find("again")


def test_a_base_that_went_meanwhile_is_not_found(models: Path) -> None:
    base = find(models, "base")
    model_store.remove_name(models, parse_model_name("base"))
    with pytest.raises(ModelNotFound):
        derive_model(models, base, parse_model_name("made"), KIND)


def test_it_is_described_with_all_it_adds(models: Path) -> None:
    overlay = Overlay(
        system="Be kind.",
        template='{{ "x" }}\n',
        parameters={"temperature": 0.5, "stop": ["a", "b"], "use_mmap": True, "seed": 3.0},
        messages=(Turn(role="user", content=" hi"),),
        licenses=("BSD",),
    )
    make(models, "made", overlay)
    made = find(models, "made")
    assert parameters(made).splitlines() == [
        "seed                           3",
        'stop                           "a"',
        'stop                           "b"',
        "temperature                    0.5",
        "use_mmap                       true",
    ]
    assert modelfile_of(made).splitlines() == [
        '# Modelfile generated by "ollama show"', "FROM base:latest",
        'TEMPLATE """{{ "x" }}', '"""', "SYSTEM Be kind.", "PARAMETER seed 3",
        'PARAMETER stop "a"', 'PARAMETER stop "b"', "PARAMETER temperature 0.5",
        "PARAMETER use_mmap true", 'MESSAGE user " hi"', 'LICENSE "MIT', 'BSD"',
    ]  # fmt: skip
    reply = show_response(made)
    assert list(reply) == [
        "license", "modelfile", "parameters", "template", "system", "details", "messages",
        "model_info", "capabilities", "modified_at",
    ]  # fmt: skip


def with_adapter(models: Path, tmp_path: Path) -> Overlay:
    """A model and an adapter that fits it."""
    base_of(tmp_path / "fits", SMOLLM2)
    model_store.add_model(models, parse_model_name("fits"), tmp_path / "fits", source="a test")
    made = adapter(models)
    lora.assemble_adapter(models, find(models, "fits").folder, made)
    return Overlay(adapter=made)


def test_an_adapter_adds_to_the_size_and_is_known_to_the_base(models: Path, tmp_path: Path) -> None:
    overlay = with_adapter(models, tmp_path)
    make(models, "tuned", overlay, base="fits")
    tuned, fits = find(models, "tuned"), find(models, "fits")
    installed_models = InstalledModels(models, {})
    [stored] = installed_models.adapters(fits)
    assert tuned.size == fits.size + stored.size
    assert installed_models.adapters(tuned) == (stored,)
    assert installed_models.adapters(find(models, "base")) == ()
    assert f"ADAPTER sha256:{overlay.adapter.weights}" in modelfile_of(tuned)  # type: ignore[union-attr]


def test_a_model_without_its_adapter_cannot_be_used(models: Path, tmp_path: Path) -> None:
    make(models, "tuned", with_adapter(models, tmp_path), base="fits")
    lora.remove_adapters_except(models, ())
    with pytest.raises(HostProblem, match="its adapter is missing"):
        InstalledModels(models, {}).find("tuned")


def test_tidying_removes_adapters_that_no_manifest_names(models: Path, tmp_path: Path) -> None:
    make(models, "tuned", with_adapter(models, tmp_path), base="fits")
    remove_unused_adapters(models)
    assert find(models, "tuned").overlay.adapter
    bad = manifests.manifest_path(models, parse_model_name("bad"))
    bad.parent.mkdir()
    bad.write_text("{")
    model_store.remove_name(models, parse_model_name("tuned"))
    remove_unused_adapters(models)
    assert list((models / "adapters").iterdir()), "who knows what the bad one names"
    bad.unlink()
    remove_unused_adapters(models)
    assert list((models / "adapters").iterdir()) == []
