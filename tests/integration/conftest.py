"""What the tests with real processes share."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.family_scripts import ACTS, Act
from tests.fakes.hub import Hub, running
from tests.support.checkpoints import SMOLLM2, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.waiting import Waits, waiting
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for something slow comes when all others are done."""
    items.sort(key=waits_for_something)


def waits_for_something(item: pytest.Item) -> bool:
    return item.get_closest_marker("waits") is not None


@pytest.fixture(scope="session", autouse=True)
def waits(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Waits]:
    """What goes on beside the other tests, from the first of them on, where anybody asks for it."""
    if not any(map(waits_for_something, request.session.items)):
        yield {}
        return
    with waiting(tmp_path_factory.mktemp("waits")) as going_on:
        yield going_on


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the scripted engine and the models `a` and `b`."""
    return fake_home(tmp_path)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `test` (completion only), and nothing else."""
    home = fake_home(tmp_path_factory.mktemp("plain"), ["test"])
    with daemon(home, config=fake_config()) as running:
        yield running


@pytest.fixture(scope="session")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon whose engines say again what real ones said for some families of models."""
    home = fake_home(tmp_path_factory.mktemp("acting"), [])
    for act in ACTS:
        install(home, act)
    scenarios = {act.name: {"replay": str(act.recorded)} for act in ACTS}
    with daemon(home, config=fake_config(scenarios=scenarios)) as running:
        yield running


@pytest.fixture(scope="session")
def hub() -> Generator[Hub]:
    """A hub that has `org/tiny` and nothing else."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    files = {
        "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(8),
    }
    with running(files) as one:
        yield one


@pytest.fixture(scope="session")
def managed(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    """A daemon with the models `test` and `slow`, and `local` out of the configuration."""
    home = fake_home(tmp_path_factory.mktemp("managed"), ["test", "slow", "kept"])
    local = home / "made-local"
    local.mkdir()
    source = next((home / "state/models/hub/models--library--kept/snapshots").iterdir())
    for file in source.iterdir():
        (local / file.name).write_bytes(file.read_bytes())
    config = fake_config(
        scenarios={"slow": {"rate": 20.0, "tokens": 30}, "kept": {"load": 1.0}},
        more=f'[model.local]\npath = "{local}"',
    )
    with daemon(home, config=config, environ={"HF_ENDPOINT": hub.endpoint}) as one:
        yield one


def install(home: Path, act: Act) -> None:
    """Put a model into the store of `home` that shows what the models of that family show."""
    folder = write_checkpoint(
        home / "made" / act.name,
        SMOLLM2 | {"model_type": act.model_type},
        chat_template_jinja=act.template,
    )
    model_store.add_model(
        home / "state" / "models", parse_model_name(act.name), folder, source="test"
    )
