"""docs/models.md is what its generator makes of the catalogue."""

from __future__ import annotations

import runpy

from tests.support.paths import ROOT
from vllamad.models.registry.registry_file import load_registry

PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_page_is_made_from_the_catalogue() -> None:
    made = runpy.run_path(str(ROOT / "packaging" / "models_page.py"))
    assert made["page"]() == PAGE, "run: python packaging/models_page.py"


def test_every_known_model_and_every_repository_is_on_it() -> None:
    models = load_registry().models
    assert [model.name for model in models if f"| `{model.name}`" not in PAGE] == []
    repositories = {one.repository for model in models for one in model.variants}
    assert {one for one in repositories if f"huggingface.co/{one})" not in PAGE} == set()


def test_gated_models_say_so_on_it() -> None:
    rows = {row.split("`")[1]: row for row in PAGE.splitlines() if row.startswith("| `")}
    assert load_registry().models
    for model in load_registry().models:
        assert ("gated" in rows[model.name]) == model.gated
