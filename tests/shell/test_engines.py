"""The runtime in use is looked up anew for every start, and the machine measured for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from vllamad.config.settings import EngineSettings, Paths, SchedulerSettings, Settings
from vllamad.core.memory import GIB, Device, Machine
from vllamad.errors import RuntimeProblem
from vllamad.host import devices
from vllamad.runtimes.facts import RuntimeFacts
from vllamad.supervisor.engines import Engines

CARD = Device(index=0, total=80 * GIB)


def install(home: Path, name: str, **facts: object) -> None:
    """A runtime that says `facts` of itself, and is the one in use from now on."""
    runtime = home / "runtimes" / name
    runtime.mkdir(parents=True)
    told = RuntimeFacts(
        name=name, python=sys.executable, engine="vllm", version="0.32.0", device="cpu",
        module="m", flags=["--uds", "--model"], tool_parsers=["hermes"],
        reasoning_parsers=["qwen3"], fork=True,
    )  # fmt: skip
    told = msgspec.structs.replace(told, **facts)
    (runtime / "runtime.json").write_bytes(msgspec.json.encode(told))
    use(home, name)


def use(home: Path, name: str) -> None:
    (home / "runtimes" / "current").unlink(missing_ok=True)
    os.symlink(name, home / "runtimes" / "current")


def engines_of(home: Path, **engine: str) -> Engines:
    paths = Paths(state=home, cache=home, logs=home, run=home, control=home / "c")
    return Engines(
        Settings(
            paths=paths,
            engine=EngineSettings(cpu_kv_cache=2 * GIB, **engine),  # type: ignore[arg-type]
            scheduler=SchedulerSettings(memory=16 * GIB),
        )
    )


class Looks:
    """Counts how often the GPUs were looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *cards: Device) -> None:
        self.count = 0
        self.cards = cards
        monkeypatch.setattr(devices, "gpus", self.gpus)

    def gpus(self) -> tuple[Device, ...]:
        self.count += 1
        return self.cards


async def test_an_engine_is_what_its_runtime_says_of_itself(tmp_path: Path) -> None:
    install(tmp_path, "one")
    engine = await engines_of(tmp_path).engine()
    assert (engine.python, engine.version, engine.device) == (sys.executable, "0.32.0", "cpu")
    assert engine.flags == {"uds", "model"}
    assert (engine.tool_parsers, engine.reasoning_parsers) == ({"hermes"}, {"qwen3"})
    assert engine.fork


async def test_another_runtime_is_used_from_the_next_start_on(tmp_path: Path) -> None:
    install(tmp_path, "one", version="1")
    engines = engines_of(tmp_path)
    assert (await engines.engine()).version == "1"
    install(tmp_path, "two", version="2")
    assert (await engines.engine()).version == "2"
    assert (await engines.info()).name == "two"


async def test_a_runtime_named_in_the_configuration_wins_over_the_one_in_use(
    tmp_path: Path,
) -> None:
    install(tmp_path, "one")
    install(tmp_path, "two")
    assert (await engines_of(tmp_path, runtime="one").info()).name == "one"


async def test_without_a_runtime_the_machine_is_measured_and_a_start_refused(
    tmp_path: Path,
) -> None:
    engines = engines_of(tmp_path)
    await engines.look()
    assert engines.machine == Machine(host=16 * GIB, cpu_kv_cache=2 * GIB)
    with pytest.raises(RuntimeProblem, match="no runtime is installed"):
        await engines.engine()
    with pytest.raises(RuntimeProblem):
        await engines.info()
    install(tmp_path, "one")
    assert (await engines.info()).in_use, "installed later, it needs no restart"


async def test_a_runtime_that_breaks_is_told_and_not_remembered(tmp_path: Path) -> None:
    install(tmp_path, "one")
    engines = engines_of(tmp_path)
    await engines.engine()
    (tmp_path / "runtimes" / "one" / "runtime.json").write_text("{")
    with pytest.raises(RuntimeProblem, match="cannot read the runtime one"):
        await engines.engine()


async def test_a_machine_is_measured_again_only_when_the_device_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch, CARD)
    install(tmp_path, "cpu")
    engines = engines_of(tmp_path)
    await engines.look()
    assert engines.machine.devices == ()
    install(tmp_path, "cuda", device="cuda")
    await engines.look()
    assert engines.machine.devices == (CARD,)
    # From now on some of what is held on the card may be held by our own workers.
    install(tmp_path, "newer", device="cuda", version="0.33.0")
    await engines.look()
    await engines.look()
    assert looks.count == 1


async def test_a_runtime_for_gpus_on_a_machine_without_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Looks(monkeypatch)
    install(tmp_path, "cuda", device="cuda")
    with pytest.raises(RuntimeProblem, match="no NVIDIA GPU answers") as caught:
        await engines_of(tmp_path).engine()
    assert "vllamactl runtime install --cpu" in caught.value.hint
