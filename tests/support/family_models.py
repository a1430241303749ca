"""Models in a fake home whose chat templates are those of real families."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.family_scripts import Act
from tests.support.checkpoints import SMOLLM2, write_checkpoint
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store


def install_family(home: Path, act: Act) -> None:
    """Put a model into the store of `home` that shows what the models of that family show."""
    folder = write_checkpoint(
        home / "made" / act.name,
        SMOLLM2 | {"model_type": act.model_type},
        chat_template_jinja=act.template,
    )
    model_store.add_model(
        home / "state" / "models", parse_model_name(act.name), folder, source="test"
    )
