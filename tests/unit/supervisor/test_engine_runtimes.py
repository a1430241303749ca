"""The runtime in use is looked up anew for every start, and the machine measured for it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.support.kv_caches import flat
from vllamad.config.settings import EngineSettings, Paths, SchedulerSettings, Settings
from vllamad.core.cpu import NumberTimes, NumberType
from vllamad.core.launch import Plan, Spec
from vllamad.core.memory import GIB, Device, Machine, Need, Placement
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import devices
from vllamad.host.machine.gpu_detection import Gpus
from vllamad.runtimes import number_type
from vllamad.runtimes.installed_runtimes import write_json_file
from vllamad.runtimes.runtime_facts import Measured, RuntimeFacts
from vllamad.supervisor import engine_runtimes as module
from vllamad.supervisor.engine_runtimes import EngineRuntimes

CARD = Device(index=0, total=80 * GIB)
THERE = Gpus(devices=(CARD,))
LOADING = Gpus(missing="the driver is not loaded: /dev/nvidiactl is missing", may_come=True)
NONE = Gpus(missing="there is no NVIDIA GPU on the PCI bus")


def NO_LOOK() -> Gpus:
    raise AssertionError("nobody asked for a GPU")


def NO_MEASURE(_facts: RuntimeFacts, _cache: Path) -> NumberTimes:
    raise RuntimeProblem("cannot measure: there is no engine")


@pytest.fixture
def autojump_clock(autojump_clock: MockClock) -> MockClock:
    """Time does not jump over what a thread is busy with: a moment without news is waited for."""
    autojump_clock.autojump_threshold = 0.02
    return autojump_clock


def install(home: Path, name: str, **facts: object) -> None:
    """A runtime that says `facts` of itself, and is the one in use from now on."""
    runtime = home / "runtimes" / name
    runtime.mkdir(parents=True)
    told = RuntimeFacts(
        name=name, python=sys.executable, engine="vllm", version="0.32.0", device="cpu",
        module="m", flags=("--uds", "--model"), tool_parsers=("hermes",),
        reasoning_parsers=("qwen3",), fork=True,
    )  # fmt: skip
    told = msgspec.structs.replace(told, **facts)
    (runtime / "runtime.json").write_bytes(msgspec.json.encode(told))
    use(home, name)


def use(home: Path, name: str) -> None:
    (home / "runtimes" / "current").unlink(missing_ok=True)
    os.symlink(name, home / "runtimes" / "current")


def engines_of(
    home: Path,
    gpus: Callable[[], Gpus] = NO_LOOK,
    cards: Callable[[], list[str]] = list,
    measure: Callable[[RuntimeFacts, Path], NumberTimes] = NO_MEASURE,
    **engine: str,
) -> EngineRuntimes:
    paths = Paths(state=home, cache=home, logs=home, run=home, control=home / "c")
    return EngineRuntimes(
        Settings(
            paths=paths,
            engine=EngineSettings(cpu_kv_cache=2 * GIB, **engine),  # type: ignore[arg-type]
            scheduler=SchedulerSettings(memory=16 * GIB),
        ),
        gpus,
        cards,
        measure,
    )


class Looks:
    """What is seen of the GPUs, look by look; the last one stays."""

    def __init__(self, *seen: Gpus) -> None:
        self.seen = list(seen)
        self.count = 0

    def __call__(self) -> Gpus:
        self.count += 1
        return self.seen[min(self.count, len(self.seen)) - 1]


async def test_an_engine_is_what_its_runtime_says_of_itself(tmp_path: Path) -> None:
    install(tmp_path, "one")
    engine = await engines_of(tmp_path).engine()
    features = engine.features
    assert (engine.python, features.version, features.device) == (sys.executable, "0.32.0", "cpu")
    assert features.flags == ("--uds", "--model")
    assert (features.tool_parsers, features.reasoning_parsers) == (("hermes",), ("qwen3",))
    assert features.fork


async def test_another_runtime_is_used_from_the_next_start_on(tmp_path: Path) -> None:
    install(tmp_path, "one", version="1")
    engines = engines_of(tmp_path)
    assert (await engines.engine()).features.version == "1"
    install(tmp_path, "two", version="2")
    assert (await engines.engine()).features.version == "2"
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
    assert engines.machine == Machine(host=16 * GIB, cpu_kv_cache=2 * GIB, cores=devices.cores())
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


async def test_gpus_are_looked_for_only_for_an_engine_that_needs_them_and_until_found(
    tmp_path: Path,
) -> None:
    looks = Looks(THERE)
    install(tmp_path, "cpu")
    engines = engines_of(tmp_path, looks)
    await engines.look()
    assert (engines.machine.devices, looks.count) == ((), 0)
    install(tmp_path, "cuda", device="cuda")
    await engines.look()
    assert engines.machine.devices == (CARD,)
    # From now on some of what is held on the card may be held by our own workers.
    install(tmp_path, "newer", device="cuda", version="0.33.0")
    await engines.look()
    await engines.ready()
    assert looks.count == 1


async def test_a_driver_that_is_still_loading_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_thread(monkeypatch)
    install(tmp_path, "cuda", device="cuda")
    engines = engines_of(tmp_path, Looks(LOADING, LOADING, LOADING, THERE))
    assert engines.waiting_for == ""
    waited: list[float] = []

    async def load() -> None:
        await engines.ready()
        waited.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(load)
        nursery.start_soon(load)
        await trio.sleep(1.5)
        assert engines.waiting_for == LOADING.missing
    assert [at - began for at in waited] == [3, 3], "whoever waits looks for all"
    assert engines.waiting_for == ""
    assert engines.machine.devices == (CARD,)


async def test_a_driver_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NVML_LIMIT", 0.1)
    install(tmp_path, "cuda", device="cuda")
    over = threading.Event()

    def hang() -> Gpus:
        over.wait(20)
        return THERE

    engines = engines_of(tmp_path, hang)
    with trio.fail_after(10):
        await engines.look()
    over.set()
    assert engines.machine.devices == ()
    with pytest.raises(RuntimeProblem, match="NVML has not answered"):
        await engines.engine()


async def test_who_gives_up_waits_no_more(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_thread(monkeypatch)
    install(tmp_path, "cuda", device="cuda")
    engines = engines_of(tmp_path, Looks(LOADING))
    with trio.move_on_after(5):
        await engines.ready()
    assert engines.waiting_for == ""


async def test_a_driver_that_never_comes_is_waited_for_once_and_named(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_thread(monkeypatch)
    install(tmp_path, "cuda", device="cuda")
    engines = engines_of(tmp_path, Looks(LOADING))
    began = trio.current_time()
    for waited in (120, 120):
        with pytest.raises(RuntimeProblem, match="/dev/nvidiactl is missing") as caught:
            await engines.ready()
        assert trio.current_time() - began == waited
    assert "nvidia-modprobe" in caught.value.hint


async def test_a_driver_that_comes_later_is_used_without_a_restart(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_thread(monkeypatch)
    install(tmp_path, "cuda", device="cuda")
    looks = Looks(LOADING)
    engines = engines_of(tmp_path, looks)
    with pytest.raises(RuntimeProblem):
        await engines.ready()
    looks.seen = [THERE]
    await trio.sleep(1)
    await engines.ready()
    assert engines.machine.devices == (CARD,)


async def test_an_engine_for_gpus_is_refused_at_once_where_there_is_no_card(tmp_path: Path) -> None:
    install(tmp_path, "cuda", device="cuda")
    engines = engines_of(tmp_path, Looks(NONE))
    for ask in (engines.ready, engines.engine):
        with pytest.raises(RuntimeProblem, match="there is no NVIDIA GPU") as caught:
            await ask()
    assert "vllamactl runtime install --cpu" in caught.value.hint


async def test_other_settings_are_measured_with_at_the_next_look(tmp_path: Path) -> None:
    install(tmp_path, "one")
    engines = engines_of(tmp_path)
    await engines.look()
    engines.settings = replace(engines.settings, scheduler=SchedulerSettings(memory=GIB))
    await engines.look()
    assert engines.machine == Machine(host=GIB, cpu_kv_cache=2 * GIB, cores=devices.cores())


@pytest.mark.parametrize(
    ("device", "cards", "warnings"),
    [("cpu", ["0000:01:00.0"], 1), ("cpu", [], 0), ("cuda", ["0000:01:00.0"], 0)],
)
async def test_a_runtime_that_leaves_a_gpu_idle_is_told_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    device: str,
    cards: list[str],
    warnings: int,
) -> None:
    install(tmp_path, "one", device=device)
    engines = engines_of(tmp_path, lambda: THERE, lambda: cards)
    with caplog.at_level("WARNING", "vllamad"):
        await engines.look()
        await engines.look()
    assert len(caplog.records) == warnings


def in_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps would jump while a thread works."""

    async def here(work: Callable[[], object], *, abandon_on_cancel: bool = False) -> object:
        return work()

    monkeypatch.setattr(trio.to_thread, "run_sync", here)


async def test_without_a_runtime_models_are_pulled_for_the_gpus_there_are(tmp_path: Path) -> None:
    assert (await engines_of(tmp_path, Looks(THERE)).hardware()).devices == (CARD,)


async def test_with_a_runtime_for_cpus_models_are_pulled_for_the_cpu(tmp_path: Path) -> None:
    install(tmp_path, "one")
    hardware = await engines_of(tmp_path).hardware()
    assert (hardware.devices, hardware.host) == ((), 16 * GIB)


FAST = NumberTimes(bfloat16=3.0, float16=4.0, float32=1.0)


def counting(found: NumberTimes | RuntimeProblem) -> Callable[[RuntimeFacts, Path], NumberTimes]:
    """A measurement that says `found`; how often it was asked is its `asked`."""

    def measure(facts: RuntimeFacts, cache: Path) -> NumberTimes:
        measure.asked += 1  # type: ignore[attr-defined]
        if isinstance(found, RuntimeProblem):
            raise found
        write_json_file(
            number_type._file(facts, devices.cpu_key(), cache),
            Measured(cpu=devices.cpu_key(), times=found),
        )
        return found

    measure.asked = 0  # type: ignore[attr-defined]
    return measure


async def test_number_types_are_measured_before_the_first_plan_and_never_again(
    tmp_path: Path,
) -> None:
    install(tmp_path, "one")
    measure = counting(FAST)
    first = engines_of(tmp_path, measure=measure)
    async with trio.open_nursery() as nursery:  # several ask at once, and wait for the same
        for _ in range(3):
            nursery.start_soon(first.ready)
    assert first.machine.numbers == FAST
    second = engines_of(tmp_path, measure=measure)
    await second.ready()
    assert second.machine.numbers == FAST
    assert measure.asked == 1  # type: ignore[attr-defined]


async def test_a_machine_of_another_kind_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = NumberTimes(bfloat16=1.0, float16=1.0, float32=9.0)
    install(tmp_path, "one", numbers=(Measured(cpu="the one it was installed on", times=slow),))
    engines = engines_of(tmp_path, measure=counting(FAST))
    await engines.ready()
    assert engines.machine.numbers == FAST
    monkeypatch.setattr(devices, "cpu_key", lambda: "the one it was installed on")
    await engines.ready()
    assert engines.machine.numbers == slow


async def test_what_cannot_be_measured_is_told_once_and_nothing_is_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, "one")
    measure = counting(RuntimeProblem("cannot run it: no such file"))
    engines = engines_of(tmp_path, measure=measure)
    await engines.ready()
    await engines.ready()
    assert engines.machine.numbers == NumberTimes()
    assert measure.asked == 1  # type: ignore[attr-defined]
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "cannot measure number types, models keep their own"
    ]


async def test_with_gpus_no_number_type_is_measured(tmp_path: Path) -> None:
    install(tmp_path, "one", device="cuda")
    measure = counting(FAST)
    await engines_of(tmp_path, Looks(THERE), measure=measure).ready()
    assert measure.asked == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("folder", "device", "there", "found"),
    [
        ("one", "cpu", True, True),
        ("one", "cpu", False, False),
        ("one", "cuda", True, False),
        ("with a space", "cpu", True, False),  # the loader would read two names
        ("a:b", "cpu", True, False),
    ],
)
async def test_the_openmp_of_the_wheel_is_known_where_it_can_be_preloaded(
    tmp_path: Path, folder: str, device: str, there: bool, found: bool
) -> None:
    runtime = tmp_path / folder
    (runtime / "lib").mkdir(parents=True)
    (runtime / "bin").mkdir()
    (runtime / "bin" / "python").symlink_to(sys.executable)
    if there:
        (runtime / "lib" / "libiomp5.so").touch()
    install(tmp_path, "one", device=device, python=str(runtime / "bin" / "python"))
    engine = await engines_of(tmp_path, Looks(THERE)).engine()
    assert engine.openmp == (str(runtime / "lib" / "libiomp5.so") if found else "")


@pytest.mark.case("F8")
async def test_a_part_of_each_gpu_is_left_to_others(tmp_path: Path) -> None:
    engines = engines_of(tmp_path, Looks(THERE))
    own = replace(engines.settings.scheduler, gpu_overhead=3 * GIB)
    engines.settings = replace(engines.settings, scheduler=own)
    assert (await engines.hardware()).devices == (replace(CARD, foreign=CARD.foreign + 3 * GIB),)


def plan_of(**spec: object) -> Plan:
    wanted = Spec(
        model="a:latest",
        folder="/m",
        need=Need(weights=1, cache=flat(2), context_length=1),
        numbers=NumberType(name="float32", why="2.3 x as fast as bfloat16 here"),
        **spec,  # type: ignore[arg-type]
    )
    return Plan(spec=wanted, placement=Placement(devices=(), per_device=1, kv_cache=1, threads=2))


async def test_how_a_cpu_will_compute_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    install(tmp_path, "one")
    engines = engines_of(tmp_path)
    assert engines.explained(plan_of()) == {}, "nothing is known yet"
    await engines.look()
    assert engines.explained(plan_of()) == {
        "dtype": "float32",
        "dtype_why": "2.3 x as fast as bfloat16 here",
        "threads": 2,
        "threads_why": "2 cores",
        "openmp": "torch's own: the runtime has no libiomp5",
    }
    told = engines.explained(plan_of(env={"OMP_NUM_THREADS": "7", "LD_PRELOAD": "/x.so"}))
    assert (told["threads"], told["threads_why"]) == (7, "OMP_NUM_THREADS is set")
    assert told["openmp"] == "LD_PRELOAD is set"
    odd = engines.explained(plan_of(env={"OMP_NUM_THREADS": "4,2"}))
    assert odd["threads"] == 2


async def test_of_gpus_nothing_is_explained(tmp_path: Path) -> None:
    install(tmp_path, "one", device="cuda")
    engines = engines_of(tmp_path, Looks(THERE))
    await engines.look()
    assert engines.explained(plan_of()) == {}
