"""The fleet carries out what the scheduler decides: real tasks, fake engines, our own clock."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fakes.workers import FakeLauncher, FakeProcess, managed_workers, spec_named
from vllamad.core.launch import Lora, Plan, Spec
from vllamad.core.memory import Placement
from vllamad.errors import ModelNotFound, Unavailable
from vllamad.protocol.lease import Granted, Refused, Revoked, Waiting
from vllamad.supervisor.workers.manager import Verdicts, WorkerManager


async def granted(verdicts: Verdicts) -> Granted:
    async for verdict in verdicts:
        if isinstance(verdict, Granted):
            return verdict
        assert isinstance(verdict, Waiting)
    raise AssertionError("never granted")


async def test_a_lease_is_granted_when_the_worker_is_ready(autojump_clock: MockClock) -> None:
    async with (
        managed_workers(FakeLauncher()) as fleet,
        fleet.lease(spec_named("a"), None) as verdicts,
    ):
        assert await verdicts.receive() == Waiting(why="loading")
        answer = await verdicts.receive()
        assert answer == Granted(endpoint="/run/w/1/s", served_name="a", context_length=4096)
        assert fleet.workers()[0].leases == 1


async def test_a_hundred_at_once_share_one_load(autojump_clock: MockClock) -> None:
    lives = FakeLauncher()
    async with managed_workers(lives, max_queue=200) as fleet, trio.open_nursery() as nursery:

        async def client() -> None:
            async with fleet.lease(spec_named("a"), None) as verdicts:
                await granted(verdicts)

        for _ in range(100):
            nursery.start_soon(client)
    assert len(lives.born) == 1


async def test_idle_for_its_keep_alive_nothing_is_left(autojump_clock: MockClock) -> None:
    lives = FakeLauncher()
    async with managed_workers(lives) as fleet:
        async with fleet.lease(spec_named("a"), 10.0) as verdicts:
            await granted(verdicts)
        await trio.sleep(9)
        assert lives.alive == 1
        await trio.sleep(2)
        assert lives.alive == 0
        assert fleet.workers() == []


async def test_the_second_model_evicts_the_first(autojump_clock: MockClock) -> None:
    lives = FakeLauncher()
    async with managed_workers(lives, max_loaded=1) as fleet:
        for model in ("a", "b"):
            async with fleet.lease(spec_named(model), None) as verdicts:
                await granted(verdicts)
                assert [info.model for info in fleet.workers()] == [model]
                assert lives.alive == 1


async def test_a_crash_revokes_with_the_reason(autojump_clock: MockClock) -> None:
    lives = FakeLauncher([FakeProcess(dies_after=20, why="CUDA error"), FakeProcess()])
    async with managed_workers(lives) as fleet, fleet.lease(spec_named("a"), None) as verdicts:
        await granted(verdicts)
        assert await verdicts.receive() == Revoked(reason="CUDA error")


async def test_a_model_that_cannot_load_refuses_everyone_who_waits(
    autojump_clock: MockClock,
) -> None:
    lives = FakeLauncher([FakeProcess(load=inf, dies_after=3, why="no such file")])
    async with managed_workers(lives) as fleet, fleet.lease(spec_named("a"), None) as verdicts:
        assert isinstance(await verdicts.receive(), Waiting)
        refused = await verdicts.receive()
        assert isinstance(refused, Refused)
        assert refused.problem.kind == "load-failed"
        assert "no such file" in refused.problem.message
        assert fleet.workers()[0].state == "failed"


async def test_an_operators_stop_returns_when_it_is_gone(autojump_clock: MockClock) -> None:
    lives = FakeLauncher(takes_to_die=3)
    async with managed_workers(lives) as fleet:
        async with fleet.lease(spec_named("a"), inf) as verdicts:
            await granted(verdicts)
        assert await fleet.stop("a", "asked")
        assert lives.alive == 0
        assert not await fleet.stop("a", "asked"), "stopping what is stopped succeeds and says so"


async def test_closing_waits_for_the_streams_and_then_for_the_groups(
    autojump_clock: MockClock,
) -> None:
    lives = FakeLauncher(takes_to_die=3)
    async with managed_workers(lives) as fleet, trio.open_nursery() as nursery:
        ended: list[float] = []

        async def stream() -> None:
            async with fleet.lease(spec_named("a"), None) as verdicts:
                await granted(verdicts)
                await trio.sleep(7)
            ended.append(trio.current_time())

        nursery.start_soon(stream)
        await trio.sleep(6)
        await fleet.close()
        assert ended
        assert lives.alive == 0


async def test_what_can_outlive_us_is_not_stopped_at_our_end(autojump_clock: MockClock) -> None:
    story = [FakeProcess(can_survive=True), FakeProcess(), FakeProcess(can_survive=True, load=1000)]
    lives = FakeLauncher(story)
    async with managed_workers(lives) as fleet, trio.open_nursery() as nursery:
        for model in "ab":
            await fleet.load(spec_named(model), keep_alive=7)

        async def load_in_vain() -> None:
            with pytest.raises(Unavailable):
                await fleet.load(spec_named("c"))

        nursery.start_soon(load_in_vain)
        await trio.sleep(1)
        assert (lives.born[0].keep_alive, lives.born[0].survives_restart) == (7, True)
        await fleet.close(hand_over=True)
        assert {info.model: info.state for info in fleet.workers()} == {"a": "ready"}


async def test_a_worker_of_a_daemon_before_us_is_gone_on_with(autojump_clock: MockClock) -> None:
    lives = FakeLauncher([FakeProcess(load=0)])
    async with managed_workers(lives) as fleet:
        plan = Plan(spec=spec_named("a"), placement=Placement(devices=(), per_device=1, kv_cache=1))
        fleet.adopt(plan, inf)
        async with fleet.lease(spec_named("a"), None) as verdicts:
            await granted(verdicts)
        (info,) = fleet.workers()
        assert (info.state, info.expires_in) == ("ready", None)
        assert lives.plans == [plan]


@pytest.mark.parametrize("moment", [0.0, 2.0, 7.0])
async def test_whoever_leaves_at_any_moment_holds_nothing(
    autojump_clock: MockClock, moment: float
) -> None:
    async with managed_workers(FakeLauncher()) as fleet:
        with trio.move_on_after(moment):
            async with fleet.lease(spec_named("a"), None) as verdicts:
                await granted(verdicts)
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert fleet.queued == 0
        assert sum(info.leases for info in fleet.workers()) == 0


async def test_a_stop_never_forgets_the_worker_that_was_started_since(
    autojump_clock: MockClock,
) -> None:
    lives = FakeLauncher(takes_to_die=3)
    async with managed_workers(lives) as fleet, trio.open_nursery() as nursery:
        async with fleet.lease(spec_named("a"), None) as verdicts:
            await granted(verdicts)
        nursery.start_soon(fleet.stop, "a", "asked")
        await trio.sleep(1)
        async with fleet.lease(spec_named("a"), None) as verdicts:  # starts it anew at once
            await granted(verdicts)
            assert [(info.state, info.leases) for info in fleet.workers()] == [("ready", 1)]
        assert lives.alive == 1


async def test_a_stop_of_what_fails_meanwhile_clears_the_failure(autojump_clock: MockClock) -> None:
    lives = FakeLauncher([FakeProcess(load=inf, dies_after=3), FakeProcess()], takes_to_die=3)
    async with managed_workers(lives) as fleet, trio.open_nursery() as nursery:
        nursery.start_soon(first_verdict, fleet)
        await trio.sleep(4)  # it is dying, for a reason of its own
        assert await fleet.stop("a", "asked")
        assert fleet.workers() == []
        async with fleet.lease(spec_named("a"), None) as verdicts:
            await granted(verdicts)


async def first_verdict(fleet: WorkerManager) -> None:
    async with fleet.lease(spec_named("a"), None) as verdicts:
        await verdicts.receive()
        await verdicts.receive()


LORA = Lora(name="lora-1", folder="/adapters/1", rank=8)


def with_lora(*loras: Lora, wants: str = "") -> Spec:
    return replace(spec_named("a"), loras=loras, lora=wants)


async def test_a_lease_on_an_adapter_is_told_the_adapters_name(autojump_clock: MockClock) -> None:
    async with managed_workers(FakeLauncher()) as fleet:
        async with fleet.lease(with_lora(LORA, wants="lora-1"), None) as verdicts:
            assert (await granted(verdicts)).served_name == "lora-1"
        async with fleet.lease(with_lora(LORA), None) as verdicts:
            assert (await granted(verdicts)).served_name == "a"


async def test_a_new_adapter_replaces_a_loaded_worker_once_it_is_idle(
    autojump_clock: MockClock,
) -> None:
    lives = FakeLauncher()
    async with managed_workers(lives) as fleet, trio.open_nursery() as nursery:

        async def new() -> None:
            async with fleet.lease(with_lora(LORA, wants="lora-1"), None) as verdicts:
                assert (await granted(verdicts)).served_name == "lora-1"

        async with fleet.lease(spec_named("a"), None) as verdicts:
            await granted(verdicts)
            nursery.start_soon(new)
            await trio.sleep(50)
            assert len(lives.born) == 1, "who is being answered is left in peace"
    assert [plan.spec.loras for plan in lives.plans] == [(), (LORA,)]


async def test_an_adapter_that_the_engine_does_not_load_is_refused_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    lives = FakeLauncher([FakeProcess(dies_after=1, why="bad adapter"), FakeProcess()])
    async with managed_workers(lives, max_failures=3) as fleet:
        async with fleet.lease(with_lora(LORA, wants="lora-1"), None) as verdicts:
            assert isinstance(await verdicts.receive(), Waiting)
            refused = await verdicts.receive()
            assert isinstance(refused, Refused)
            assert refused.problem.message == "cannot load the adapter: bad adapter"
        async with fleet.lease(with_lora(LORA), None) as verdicts:
            assert (await granted(verdicts)).served_name == "a"


async def test_forgetting_refuses_who_waits_and_ends_the_load(autojump_clock: MockClock) -> None:
    lives = FakeLauncher([FakeProcess(load=100)])
    async with managed_workers(lives) as fleet, fleet.lease(spec_named("a"), None) as verdicts:
        assert await verdicts.receive() == Waiting(why="loading")
        await fleet.forget("a", ModelNotFound("model 'a' not found"))
        refused = await verdicts.receive()
        assert isinstance(refused, Refused)
        assert refused.problem.kind == "model-not-found"
        assert lives.alive == 0
