"""The model a request names is found, or refused in its route's own words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.checkpoints import SMOLLM2, write_checkpoint
from tests.support.daemon import fake_home
from vllamad.config.settings import ModelSettings
from vllamad.errors import BadInput, ModelNotFound, NotAllowed
from vllamad.gateway.context import Context
from vllamad.gateway.inference.model_lookup import find, named, traits_of, without_missing_parsers
from vllamad.models.installed import InstalledModels
from vllamad.protocol.lease import Granted
from vllamad.translate.ollama.to_engine import ModelTraits

MISSING = BadInput("model is required")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A gateway that knows the models `a` and `org/b`; of all the rest `find` needs nothing."""
    models = fake_home(tmp_path, models=("a", "org/b")) / "state" / "models"
    return cast("Context", SimpleNamespace(installed_models=InstalledModels(models, {})))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a:latest"),
        ("A:Latest", "a:latest"),
        ("registry.ollama.ai/library/a", "a:latest"),
        ("org/b", "org/b:latest"),
        ("a:local", "a:latest"),
    ],
)
async def test_a_model_is_found_by_every_spelling(context: Context, text: str, name: str) -> None:
    for _ in range(2):  # the first time its files are read, the second they are remembered
        assert (await find(context, text, missing=MISSING)).name == name


async def test_an_unknown_model_is_named_as_it_was_sent(context: Context) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await find(context, "Nope:7b", missing=MISSING)
    assert caught.value.message == "model 'Nope:7b' not found"


async def test_a_route_may_have_words_of_its_own(context: Context) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await find(context, "nope:local", missing=MISSING, unknown=lambda name: f"no {name} here")
    assert caught.value.message == "no nope here"


@pytest.mark.parametrize("missing", [MISSING, ModelNotFound("model '' not found")])
def test_no_name_is_refused_as_the_route_wants(missing: BadInput | ModelNotFound) -> None:
    with pytest.raises(type(missing)) as caught:
        named("", missing=missing)
    assert caught.value is missing


@pytest.mark.parametrize("text", ["a:b:c", "../etc/passwd", "a b", "x" * 300, "/"])
async def test_what_is_no_name_is_refused(context: Context, text: str) -> None:
    with pytest.raises(BadInput, match="invalid model name"):
        await find(context, text, missing=MISSING)


@pytest.mark.parametrize("text", ["a:cloud", "gpt-oss:120b-cloud"])
async def test_a_model_in_the_cloud_is_refused(context: Context, text: str) -> None:
    with pytest.raises(NotAllowed, match="ollama cloud is disabled"):
        await find(context, text, missing=MISSING)
    with pytest.raises(NotAllowed, match="not here"):
        named(text, missing=MISSING, cloud="not here")


def test_the_traits_of_a_model_are_its_names_abilities_and_sampling(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "m", SMOLLM2, generation_config_json={"temperature": 0.6, "top_k": 20}
    )
    model = InstalledModels(tmp_path / "none", {"Tiny": ModelSettings(path=str(folder))}).find(
        "tiny"
    )
    assert model is not None
    traits = traits_of(model)
    assert traits.full_name == "registry.ollama.ai/library/Tiny:latest"
    assert traits.capabilities == {"completion"}
    assert traits.stored == {"temperature": 0.6, "top_k": 20}


@pytest.mark.parametrize(
    ("tools", "thinking", "left"),
    [
        (True, True, {"completion", "tools", "thinking"}),
        (False, True, {"completion", "thinking"}),
        (False, False, {"completion"}),
    ],
)
def test_a_worker_without_a_parser_can_do_less(tools: bool, thinking: bool, left: set[str]) -> None:
    traits = ModelTraits(full_name="m", capabilities=frozenset({"completion", "tools", "thinking"}))
    grant = Granted(endpoint="s", served_name="m", context_length=1, tools=tools, thinking=thinking)
    assert without_missing_parsers(traits, grant).capabilities == left
    assert (without_missing_parsers(traits, grant) is traits) == (tools and thinking)
