"""A worker's life told against the clock: engines are fakes, time is ours, nobody waits."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.workers import FakeLauncher, FakeProcess
from tests.support.kv_caches import flat
from vllamad.config.settings import Flag, SchedulerSettings, WorkerSettings
from vllamad.core.launch import Lora, Plan, Spec
from vllamad.core.lifecycle import State
from vllamad.core.memory import Need, Placement
from vllamad.supervisor.workers.worker import Worker

PLAN = Plan(
    spec=Spec(
        model="tiny:latest",
        folder="/models/tiny",
        need=Need(weights=1, cache=flat(2), context_length=2048),
    ),
    placement=Placement(devices=(), per_device=1, kv_cache=1),
)
SETTINGS = WorkerSettings(drain_timeout=30, backoff_base=1, backoff_limit=60, max_failures=3)


class Diary:
    """A worker, and when it was in which state."""

    def __init__(self, lives: FakeLauncher, **settings: float) -> None:
        self.lives = lives
        self.entries: list[tuple[int, State]] = []
        self.began = trio.current_time()
        scheduler = SchedulerSettings(load_timeout=settings.pop("load_timeout", 100))
        self.worker = Worker(PLAN, lives, SETTINGS, scheduler, self.note)

    def note(self, worker: Worker) -> None:
        if worker.state in (State.STOPPED, State.BACKOFF, State.FAILED):
            assert not self.lives.alive, "memory is free only when nobody can hold it"
        self.entries.append((round(trio.current_time() - self.began), worker.state))

    @property
    def states(self) -> list[State]:
        return [state for _, state in self.entries]


async def test_loaded_served_drained_and_stopped(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher(takes_to_die=2))
    diary.worker.note_leases(1)
    nursery.start_soon(diary.worker.run)
    await trio.sleep(100)
    diary.worker.stop("asked")
    await trio.sleep(10)
    diary.worker.note_leases(0)
    await diary.worker.gone.wait()
    assert diary.entries == [
        (0, State.STARTING),
        (5, State.READY),
        (100, State.DRAINING),
        (110, State.STOPPING),
        (112, State.STOPPED),
    ]
    assert diary.worker.context_length == 4096
    assert not diary.lives.born[0].hurried


async def test_a_drain_has_a_limit(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    diary = Diary(FakeLauncher())
    diary.worker.note_leases(1)
    nursery.start_soon(diary.worker.run)
    await trio.sleep(100)
    diary.worker.stop("asked")  # and no lease ever comes back
    await diary.worker.gone.wait()
    assert diary.entries[-2:] == [(130, State.STOPPING), (130, State.STOPPED)]


async def test_a_drain_ends_with_the_last_lease_however_often_the_others_were_told(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher())
    diary.worker.note_leases(2)
    nursery.start_soon(diary.worker.run)
    await trio.sleep(100)
    diary.worker.stop("asked")
    await trio.sleep(1)
    diary.worker.note_leases(1)
    await trio.sleep(1)
    diary.worker.note_leases(0)
    await diary.worker.gone.wait()
    assert diary.entries[-2:] == [(102, State.STOPPING), (102, State.STOPPED)]


async def test_a_stop_while_loading_does_not_wait_for_the_load(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(load=90)]))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(10)
    assert diary.worker.load_phase == "loading weights"
    diary.worker.stop("asked")
    await diary.worker.gone.wait()
    assert diary.worker.load_phase == ""
    assert diary.entries == [
        (0, State.STARTING),
        (10, State.STOPPING),
        (10, State.STOPPED),
    ]
    assert diary.lives.born[0].hurried, "TERM is ignored before an engine is ready"


async def test_a_crash_is_followed_by_another_life(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(dies_after=50), FakeProcess()]))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(70)
    assert diary.states == [
        State.STARTING,
        State.READY,
        State.STOPPING,
        State.BACKOFF,
        State.STARTING,
        State.READY,
    ]
    assert diary.worker.restarts == 1
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


REFUSED = "TypeError: --tool-call-parser hermes cannot be used with the tokenizer of 'tiny': no"


@pytest.mark.parametrize(
    ("args", "parser"), [({}, None), ({"tool-call-parser": "hermes"}, "hermes")]
)
async def test_without_the_parsers_that_its_engine_refuses_it_lives_again(
    autojump_clock: MockClock, nursery: trio.Nursery, args: dict[str, Flag], parser: str | None
) -> None:
    """A parser of our own choice gives way; one that the operator named does not."""
    diary = Diary(FakeLauncher([FakeProcess(dies_after=1, why=REFUSED), FakeProcess()]))
    diary.worker.plan = replace(PLAN, spec=replace(PLAN.spec, tool_parser="hermes", args=args))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(70)
    assert [plan.spec.tool_parser for plan in diary.lives.plans] == ["hermes", parser]
    assert diary.worker.plan.spec.tool_parser == parser
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


NOT_ADMITTED = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (1.00 GiB KV"
    " cache is needed, which is larger than the available KV cache memory (1.00 GiB). Based on the"
    " available memory, the estimated maximum model length is {}. Try increasing"
)


async def test_the_shorter_context_that_its_engine_names_is_used_at_once_and_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    refused = [FakeProcess(dies_after=1, why=NOT_ADMITTED.format(32640)), FakeProcess()]
    diary = Diary(FakeLauncher(refused))
    diary.worker.plan = replace(PLAN, spec=replace(PLAN.spec, context_length=32768))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(6.5)
    assert [plan.context_length for plan in diary.lives.plans] == [32768, 31744]
    assert diary.worker.state is State.READY, "with no pause in between"
    assert diary.worker.context_length == 4096, "what the engine itself says"
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


@pytest.mark.parametrize(
    ("why", "args", "starts"),
    [
        (NOT_ADMITTED.format(32640), {}, 3),
        (NOT_ADMITTED.format(100), {}, 2),  # not one block
        (NOT_ADMITTED.format(32640), {"max_model_len": 32768}, 2),
    ],
)
async def test_an_engine_that_refuses_the_shorter_context_too_is_given_up(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    why: str,
    args: dict[str, Flag],
    starts: int,
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(dies_after=1, why=why)]))
    diary.worker.plan = replace(PLAN, spec=replace(PLAN.spec, context_length=32768, args=args))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(70)
    assert diary.worker.state is State.FAILED
    assert len(diary.lives.plans) == starts


async def test_without_the_adapters_that_its_engine_cannot_load_it_lives_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(dies_after=1, why="bad adapter"), FakeProcess()]))
    loras = (Lora(name="one", folder="/adapters/one", rank=8),)
    diary.worker.plan = replace(PLAN, spec=replace(PLAN.spec, loras=loras))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(20)
    assert [plan.spec.loras for plan in diary.lives.plans] == [loras, ()]
    assert diary.worker.state is State.READY
    assert diary.worker.lora_problem == "bad adapter"
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


async def test_an_engine_that_dies_later_keeps_its_adapters(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(fails_after=20), FakeProcess()]))
    loras = (Lora(name="one", folder="/adapters/one", rank=8),)
    diary.worker.plan = replace(PLAN, spec=replace(PLAN.spec, loras=loras))
    nursery.start_soon(diary.worker.run)
    await trio.sleep(60)
    assert [plan.spec.loras for plan in diary.lives.plans] == [loras, loras]
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


async def test_an_engine_that_is_deaf_is_ended_like_one_that_died(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    lives = FakeLauncher(
        [FakeProcess(fails_after=50, why="no answer to 3 health probes"), FakeProcess()]
    )
    diary = Diary(lives)
    nursery.start_soon(diary.worker.run)
    await trio.sleep(55.1)
    assert diary.entries[2] == (55, State.STOPPING)
    assert diary.worker.reason == "no answer to 3 health probes"
    assert lives.born[0].hurried
    await trio.sleep(20)
    diary.worker.note_leases(0)
    diary.worker.stop("asked")
    await diary.worker.gone.wait()


async def test_one_that_never_gets_ready_is_given_up_with_its_reason(
    autojump_clock: MockClock,
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(load=inf, dies_after=3)]))
    await diary.worker.run()
    assert diary.states == [
        *(State.STARTING, State.STOPPING, State.BACKOFF) * 2,
        State.STARTING,
        State.STOPPING,
        State.FAILED,
    ]
    assert diary.worker.reason == "boom"


async def test_a_load_has_a_limit(autojump_clock: MockClock) -> None:
    diary = Diary(FakeLauncher([FakeProcess(load=inf)]), load_timeout=60)
    await diary.worker.run()
    assert diary.entries[1] == (60, State.STOPPING)
    assert diary.worker.reason == "not ready after 60 s"


async def test_what_cannot_even_start_says_why(autojump_clock: MockClock) -> None:
    diary = Diary(FakeLauncher(refuses="cannot start /usr/bin/nothing: no such file"))
    await diary.worker.run()
    assert diary.worker.state is State.FAILED
    assert diary.worker.reason == "cannot start /usr/bin/nothing: no such file"


async def test_a_stop_during_the_backoff_is_heard_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    diary = Diary(FakeLauncher([FakeProcess(dies_after=1, load=inf)]))
    nursery.start_soon(diary.worker.run)
    with trio.fail_after(60):
        while diary.worker.state is not State.BACKOFF:  # noqa: ASYNC110 - the clock is ours
            await trio.sleep(0.1)
    before = trio.current_time()
    diary.worker.stop("asked")
    await diary.worker.gone.wait()
    assert diary.worker.state is State.STOPPED
    assert trio.current_time() == before


@pytest.mark.parametrize("moment", [1, 6, 101])
async def test_cancelled_at_any_moment_nothing_is_left_alive(
    autojump_clock: MockClock, moment: float
) -> None:
    diary = Diary(FakeLauncher(takes_to_die=2))
    with trio.move_on_after(moment):
        await diary.worker.run()
    assert diary.lives.alive == 0
    assert diary.worker.gone.is_set()


async def test_a_start_is_explained_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    diary = Diary(FakeLauncher(refuses="cannot start it"))
    await diary.worker.run()
    fields = {record.message: vars(record)["fields"] for record in caplog.records}
    assert fields["worker starting"]["dtype"] == "float32"
    assert fields["worker starting"]["dtype_why"] == f"of {diary.worker.model}"
    assert "dtype" not in fields["worker stopping"]
