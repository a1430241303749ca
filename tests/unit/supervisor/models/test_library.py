"""What the control plane asks of the installed models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkpoints import QWEN2, write_checkpoint
from tests.support.daemon import ALIKE, fake_home
from vllamad.config.settings import Paths, SchedulerSettings, Settings
from vllamad.core.memory import GIB, Machine
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, ModelNotFound
from vllamad.host.machine import devices
from vllamad.models.installed import InstalledModels
from vllamad.models.store import model_store
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.models.library import Library


class House:
    """A library over two models, and what it told of the machine."""

    def __init__(self, home: Path) -> None:
        fake_home(home, models=("a", "org/b"))
        paths = Paths(
            state=home / "state", cache=home, logs=home / "logs", run=home, control=home / "c"
        )
        settings = Settings(paths=paths, scheduler=SchedulerSettings(memory=16 * GIB))
        self.machines: list[Machine] = []
        self.library = Library(
            settings,
            InstalledModels(paths.models, {}),
            EngineRuntimes(settings),
            self.machines.append,
            {},
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("name", ["a", "A", "a:latest", "library/a"])
async def test_a_model_is_found_by_any_name_that_means_it(house: House, name: str) -> None:
    assert (await house.library.find(name)).name == "a:latest"


async def test_a_model_that_is_not_there_is_refused_with_advice(house: House) -> None:
    with pytest.raises(ModelNotFound, match="model 'nope' not found") as caught:
        await house.library.find("nope")
    assert "vllamactl pull" in caught.value.hint


async def test_what_is_no_name_is_refused(house: House) -> None:
    with pytest.raises(BadInput):
        await house.library.find("a:b:c")


async def test_whoever_plans_is_told_of_the_machine_a_spec_was_made_for(house: House) -> None:
    spec = await house.library.spec("a")
    assert spec.model == "a:latest"
    (machine,) = house.machines
    assert machine == Machine(host=16 * GIB, cores=devices.cores(), numbers=ALIKE)


async def test_a_spec_is_not_made_again_for_every_request(house: House) -> None:
    assert await house.library.spec("a") is await house.library.spec("a")


async def test_a_model_installed_again_has_another_spec_at_once(
    house: House, tmp_path: Path
) -> None:
    before = await house.library.spec("a")
    folder = write_checkpoint(tmp_path / "other", QWEN2)
    model_store.add_model(
        tmp_path / "state" / "models", parse_model_name("a"), folder, source="another place"
    )
    after = await house.library.spec("a")
    assert before.digest != after.digest


async def test_every_model_is_listed_as_it_is_shown(house: House) -> None:
    models = await house.library.models()
    assert sorted(model.name for model in models) == ["a:latest", "org/b:latest"]
    for model in models:
        assert (await house.library.detail(model.name)).info == model


async def test_a_log_is_named_after_the_model_whatever_it_was_called(
    house: House, tmp_path: Path
) -> None:
    assert await house.library.log_file("ORG/B") == tmp_path / "logs" / "org+b@latest.log"
