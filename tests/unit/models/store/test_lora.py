"""Adapters: made of two blobs, for one model, and only where the engine could use them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.adapters import CONFIG, Q, adapter, base_of, blob
from tests.support.checkpoints import SMOLLM2, Shapes
from vllamad.core.overlay import Adapter
from vllamad.errors import BadInput
from vllamad.models.store import lora
from vllamad.models.store.lora import (
    adapters_folder,
    assemble_adapter,
    list_adapters,
    remove_adapters_except,
)
from vllamad.models.store.upload_blobs import blob_path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model whose only layer takes 6 numbers and gives 8, beside an eye with other ones."""
    return base_of(tmp_path / "models" / "hub" / "base", SMOLLM2)


def test_an_adapter_stands_on_the_shelf_of_its_model(tmp_path: Path, base: Path) -> None:
    models = tmp_path / "models"
    one = adapter(models)
    place = assemble_adapter(models, base, one)
    assert assemble_adapter(models, base, one) == place, "making it twice is making it once"
    assert sorted(path.name for path in place.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    [found] = list_adapters(models, base)
    assert (found.id, found.folder, found.rank) == (one.id, place, 4)
    assert found.size == blob_path(models, f"sha256:{one.weights}").stat().st_size
    assert list_adapters(models, tmp_path / "other") == ()


def test_its_files_outlive_their_blobs_and_are_readable_by_the_engine(
    tmp_path: Path, base: Path
) -> None:
    models = tmp_path / "models"
    one = adapter(models)
    blob_path(models, f"sha256:{one.weights}").chmod(0o600)
    place = assemble_adapter(models, base, one)
    for path in (models / "blobs").glob("*"):
        path.unlink()
    assert (place / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_store_may_be_moved_as_a_whole(tmp_path: Path, base: Path) -> None:
    assemble_adapter(tmp_path / "models", base, adapter(tmp_path / "models"))
    (tmp_path / "models").rename(tmp_path / "moved")
    assert list_adapters(tmp_path / "moved", tmp_path / "moved" / "hub" / "base")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"peft_type": "IA3"}, "its peft_type is not LORA"),
        ({"r": 0}, "its rank is not a number from 1 to 512"),
        ({"r": "8"}, "its rank is not a number"),
        ({"r": 513}, "its rank is not a number"),
        ({"rank_pattern": {"q_proj": 1024}}, "its rank is not a number"),
        ({"use_dora": True}, "the engine does not support its use_dora"),
        ({"modules_to_save": ["lm_head"]}, "the engine does not support its modules_to_save"),
        ({"bias": "all"}, "the engine does not support its bias"),
    ],
)
def test_what_the_engine_could_not_load_is_refused(
    tmp_path: Path, base: Path, config: Mapping[str, object], text: str
) -> None:
    models = tmp_path / "models"
    with pytest.raises(BadInput, match=text):
        assemble_adapter(models, base, adapter(models, {**CONFIG, **config}))
    assert list(adapters_folder(models, base).iterdir()) == [], "and nothing of it is left"


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({f"x.{Q}.lora_A.weight": ("F32", (4, 7))}, "has width 7, in the model 6"),
        ({f"x.{Q}.lora_B.weight": ("F32", (9, 4))}, "has width 9, in the model 8"),
        ({"base_model.model.other.lora_A.weight": ("F32", (4, 6))}, "has none of its layers"),
        ({f"{Q}.something": ("F32", (4, 6))}, "has none of its layers"),
        ({f"{Q}.lora_A.weight": ("F32", (24,))}, "has none of its layers"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, base: Path, shapes: Shapes, text: str
) -> None:
    models = tmp_path / "models"
    with pytest.raises(BadInput, match=text):
        assemble_adapter(models, base, adapter(models, shapes=shapes))


def test_the_layers_of_a_quantised_model_have_other_shapes(tmp_path: Path) -> None:
    models = tmp_path / "models"
    base = base_of(models / "awq", {**SMOLLM2, "quantization_config": {"quant_method": "awq"}})
    assemble_adapter(models, base, adapter(models, shapes={f"{Q}.lora_A.weight": ("F32", (4, 1))}))


def test_a_blob_that_was_not_uploaded_is_named(tmp_path: Path, base: Path) -> None:
    missing = Adapter(config="0" * 64, weights="1" * 64)
    with pytest.raises(BadInput, match=f'blob "sha256:{"0" * 64}" not found'):
        assemble_adapter(tmp_path / "models", base, missing)


def test_bytes_that_are_no_adapter_are_refused(tmp_path: Path, base: Path) -> None:
    models = tmp_path / "models"
    broken = Adapter(config=blob(models, b"{"), weights=blob(models, b"x" * 20))
    with pytest.raises(BadInput, match=r"adapter_config\.json: it is not a JSON object"):
        assemble_adapter(models, base, broken)
    headless = Adapter(config=adapter(models).config, weights=blob(models, b"\xff" * 20))
    with pytest.raises(BadInput, match=r"adapter_model\.safetensors"):
        assemble_adapter(models, base, headless)


def test_an_adapter_that_lost_a_file_is_not_loaded(tmp_path: Path, base: Path) -> None:
    place = assemble_adapter(tmp_path / "models", base, adapter(tmp_path / "models"))
    (place / lora.CONFIG).unlink()
    assert list_adapters(tmp_path / "models", base) == ()


def test_a_sweep_leaves_what_is_used_and_nothing_else(tmp_path: Path, base: Path) -> None:
    models = tmp_path / "models"
    kept, gone = adapter(models), adapter(models, CONFIG | {"r": 2})
    place = assemble_adapter(models, base, kept)
    assemble_adapter(models, base, gone)
    remove_adapters_except(models, {kept.id})
    assert [found.folder for found in list_adapters(models, base)] == [place]
    remove_adapters_except(models, ())
    assert list((models / "adapters").iterdir()) == []
