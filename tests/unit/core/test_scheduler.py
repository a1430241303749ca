"""Ollama's timelines as events of the scheduler: no clock, no tasks, no processes."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from vllamad.config.settings import EngineSettings
from vllamad.core.decisions import Decision, Grant, LeaseId, Refuse, Revoke, Start, Stop
from vllamad.core.launch import Lora, Spec
from vllamad.core.lifecycle import State
from vllamad.core.memory import CPU_OVERHEAD, GIB, Machine, Need
from vllamad.core.scheduler import Limits, Scheduler
from vllamad.errors import DoesNotFit, LoadFailed, ModelNotFound, ServerBusy, Unavailable

WHY = "it is being removed"
ROOMY = Machine(host=1000 * GIB)


def limits(**changes: float) -> Limits:
    values: dict[str, float] = {
        "keep_alive": 300,
        "max_loaded": 0,
        "max_queue": 512,
        "max_running": 256,
        "queue_timeout": 300,
        "failed_cooldown": 600,
    }
    return Limits(**(values | changes))  # type: ignore[arg-type]


def spec(model: str, gib: int = 1, **more: float) -> Spec:
    need = Need(weights=gib * GIB, context_length=2048)
    return Spec(model=model, folder=f"/models/{model}", need=need, **more)  # type: ignore[arg-type]


class Story:
    """A scheduler and its lease numbers, for short tests."""

    def __init__(self, machine: Machine = ROOMY, **changes: float) -> None:
        self.scheduler = Scheduler(limits(**changes), machine)
        self.now = 0.0
        self.last = 0

    def ask(
        self,
        model: str,
        gib: int = 1,
        *,
        keep: float | None = None,
        configured: float | None = None,
    ) -> list[Decision]:
        self.last += 1
        requested = (
            spec(model, gib) if configured is None else spec(model, gib, keep_alive=configured)
        )
        return self.scheduler.arrive(LeaseId(self.last), requested, keep_alive=keep, now=self.now)

    def go(self, lease: int) -> list[Decision]:
        return self.scheduler.leave(LeaseId(lease), now=self.now)

    def moves(self, model: str, *states: State, reason: str = "") -> list[Decision]:
        decisions: list[Decision] = []
        for state in states:
            decisions += self.scheduler.moved(model, state, reason=reason, now=self.now)
        return decisions

    def loaded(self, model: str, gib: int = 1, *, keep: float | None = None) -> Story:
        """Load `model` and leave it idle."""
        self.ask(model, gib, keep=keep)
        self.moves(model, State.STARTING, State.READY)
        self.go(self.last)
        return self

    def at(self, now: float) -> list[Decision]:
        self.now = now
        return self.scheduler.tick(now=now)

    def stops(self, model: str) -> list[Decision]:
        return self.moves(model, State.DRAINING, State.STOPPING, State.STOPPED)


def kinds(decisions: list[Decision]) -> list[object]:
    """Starts and stops as pairs with the model, other decisions unchanged."""
    return [
        ("start", d.plan.model)
        if isinstance(d, Start)
        else ("stop", d.model)
        if isinstance(d, Stop)
        else d
        for d in decisions
    ]


def test_the_first_request_loads_and_is_served_when_ready() -> None:
    story = Story()
    assert kinds(story.ask("a")) == [("start", "a")]
    assert story.moves("a", State.STARTING) == []
    assert story.scheduler.why_waiting(LeaseId(1)) == "loading"
    assert story.moves("a", State.READY) == [Grant(LeaseId(1), "a")]


def test_concurrent_requests_share_one_load() -> None:
    story = Story()
    assert len(story.ask("a") + story.ask("a") + story.ask("a")) == 1
    granted = story.moves("a", State.STARTING, State.READY)
    assert granted == [Grant(LeaseId(n), "a") for n in (1, 2, 3)]


def test_one_model_loads_at_a_time() -> None:
    story = Story()
    assert kinds(story.ask("a")) == [("start", "a")]
    assert story.ask("b") == []
    assert story.scheduler.why_waiting(LeaseId(2)) == "queued"
    assert kinds(story.moves("a", State.STARTING, State.READY))[1:] == [("start", "b")]


def test_a_loaded_model_serves_while_another_loads() -> None:
    story = Story().loaded("a")
    story.ask("b")
    assert story.ask("a") == [Grant(LeaseId(3), "a")]


def test_idle_for_its_keep_alive_stops() -> None:
    """Vector 71."""
    story = Story().loaded("a")
    assert story.scheduler.deadline() == 300
    assert story.at(299.9) == []
    assert kinds(story.at(300)) == [("stop", "a")]
    assert story.scheduler.deadline() == inf


def test_keep_alive_sticks_to_the_worker() -> None:
    """Vector 72."""
    story = Story().loaded("a", keep=10)
    story.at(5)
    story.ask("a")
    assert story.scheduler.expires_at("a", now=95) == 105, "in use it has all of it still"
    story.go(story.last)
    assert story.scheduler.expires_at("a", now=95) == 15


def test_keep_alive_nought_stops_after_the_answer() -> None:
    """Vector 73."""
    story = Story()
    story.ask("a", keep=0)
    story.moves("a", State.STARTING, State.READY)
    assert kinds(story.go(1)) == [("stop", "a")]


def test_an_unload_lets_running_requests_finish() -> None:
    """Vector 74."""
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    assert story.scheduler.unload("a", now=1) == []
    assert kinds(story.go(1)) == [("stop", "a")]


def test_unloading_what_is_not_loaded_does_nothing() -> None:
    assert Story().scheduler.unload("a", now=0) == []


def test_an_idle_model_makes_way_when_the_cap_is_reached() -> None:
    """Vector 76, first half."""
    story = Story(max_loaded=1).loaded("a")
    assert kinds(story.ask("b")) == [("stop", "a")]
    assert kinds(story.stops("a")) == [("start", "b")]


def test_a_busy_worker_gets_no_new_lease_while_another_model_waits() -> None:
    """Vector 76, second half: new requests for the busy model queue behind the waiting one."""
    story = Story(max_loaded=1)
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    assert story.ask("b") == []
    assert story.ask("a") == []
    assert kinds(story.go(1)) == [("stop", "a")]
    assert kinds(story.stops("a")) == [("start", "b")]
    assert story.moves("b", State.STARTING, State.READY)[0] == Grant(LeaseId(2), "b")


def test_a_request_that_leaves_the_queue_releases_the_busy_worker() -> None:
    story = Story(max_loaded=1)
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    story.ask("b")
    story.ask("a")
    assert story.go(2) == [Grant(LeaseId(3), "a")]


def test_memory_evicts_as_the_cap_does() -> None:
    machine = Machine(host=10 * GIB + 2 * CPU_OVERHEAD, cpu_kv_cache=0)
    story = Story(machine).loaded("a", 6)
    assert kinds(story.ask("b", 6)) == [("stop", "a")]


def test_a_model_that_never_fits_is_refused_with_the_numbers() -> None:
    machine = Machine(host=10 * GIB, cpu_kv_cache=0)
    [refusal] = Story(machine).ask("huge", 40)
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, DoesNotFit)
    assert "42598 MiB, at most 10240 MiB" in refusal.error.message


def test_a_model_that_never_fits_does_not_delay_the_next() -> None:
    story = Story(Machine(host=10 * GIB + 3 * CPU_OVERHEAD, cpu_kv_cache=0))
    story.ask("a")
    story.ask("huge", 999)
    story.ask("huge", 999)
    story.ask("b")
    story.moves("a", State.STARTING)
    _, first, second, start = story.moves("a", State.READY)
    assert isinstance(first, Refuse)
    assert isinstance(second, Refuse)
    assert kinds([start]) == [("start", "b")]


def test_deleting_a_model_refuses_its_requests_and_drains_its_worker() -> None:
    story = Story().loaded("a")
    story.ask("a")
    story.ask("b")
    story.ask("a", keep=0)
    gone = Unavailable("model 'b' is being removed")
    assert story.scheduler.forget("b", gone, now=0) == [Refuse(LeaseId(3), gone), Stop("b", WHY)]
    assert story.scheduler.forget("a", gone, now=0) == [Stop("a", WHY)]
    assert story.scheduler.forget("c", gone, now=0) == []


CHANGES: list[dict[str, object]] = [
    {"folder": "/models/newer"},
    {"template": "{{ other }}"},
    {"args": {"seed": 1}},
    {"env": {"A": "b"}},
    {"context_length": 1024},
    {"need": Need(weights=GIB, context_length=2048, gpus=2)},
    {"need": Need(weights=GIB, context_length=2048, utilization=0.5)},
    {"engine": EngineSettings(fork=False)},
    {"engine": EngineSettings(runtime="other")},
    {"memory_max": GIB},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_worker_with_other_settings_does_not_serve(change: dict[str, object]) -> None:
    changed = replace(spec("a"), **change)  # type: ignore[arg-type]
    assert not spec("a").serves(changed)
    assert changed.serves(changed)


@pytest.mark.parametrize("change", [{"keep_alive": 7.0}, {"tool_parser": "hermes"}])
def test_settings_not_used_at_start_make_no_difference(change: dict[str, object]) -> None:
    assert spec("a").serves(replace(spec("a"), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("change", [{"folder": "/models/newer"}, {"args": {"seed": 1}}])
def test_a_worker_with_other_files_or_settings_is_replaced_when_idle(
    busy: bool, change: dict[str, object]
) -> None:
    story = Story().loaded("a")
    if busy:
        story.ask("a")
    changed = replace(spec("a"), **change)  # type: ignore[arg-type]
    requested = story.scheduler.arrive(LeaseId(9), changed, keep_alive=None, now=0)
    stop = Stop("a", "its files or settings are others now")
    assert requested == ([] if busy else [stop])
    if busy:
        assert story.ask("a") == [], "and takes nobody new"
        assert story.go(2) == [stop]
    (start, *_) = story.stops("a")
    assert isinstance(start, Start)
    assert start.plan.spec == changed


def test_a_full_queue_refuses_at_once_and_serves_the_loaded() -> None:
    """Vector 79."""
    story = Story(max_queue=1).loaded("loaded")
    story.ask("a")
    assert story.ask("b") == []
    [refusal] = story.ask("c")
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, ServerBusy)
    assert story.ask("loaded") == [Grant(LeaseId(5), "loaded")]


def test_waiting_in_the_queue_has_a_limit_but_a_load_has_its_own() -> None:
    story = Story(queue_timeout=30)
    story.ask("a")
    story.moves("a", State.STARTING)
    story.ask("b")
    assert story.scheduler.deadline() == 30
    [refusal] = story.at(30)
    assert refusal == Refuse(LeaseId(2), refusal.error)  # type: ignore[union-attr]
    assert story.scheduler.deadline() == inf


def test_a_worker_serves_no_more_than_its_limit_at_once() -> None:
    story = Story(max_running=1)
    story.ask("a")
    story.ask("a")
    assert story.moves("a", State.STARTING, State.READY) == [Grant(LeaseId(1), "a")]
    assert story.go(1) == [Grant(LeaseId(2), "a")]


def test_a_crash_revokes_leases_and_keeps_waiting_requests_queued() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    assert story.moves("a", State.STOPPING, reason="boom") == [Revoke(LeaseId(1), "boom")]
    assert story.ask("a") == []
    assert story.moves("a", State.BACKOFF, State.STARTING) == []
    assert story.moves("a", State.READY) == [Grant(LeaseId(2), "a")]


def test_an_unused_worker_in_backoff_expires() -> None:
    story = Story().loaded("a")
    story.moves("a", State.STOPPING, State.BACKOFF)
    assert kinds(story.at(300)) == [("stop", "a")]


def test_a_failed_model_refuses_at_once_with_its_reason_until_the_cooldown() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.STOPPING)
    [refusal] = story.moves("a", State.FAILED, reason="no such file")
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, LoadFailed)
    assert "no such file" in refusal.error.message
    story.now = 599
    assert isinstance(story.ask("a")[0], Refuse)
    story.now = 600
    assert kinds(story.ask("a")) == [("start", "a")]


def test_a_failed_model_never_delays_another() -> None:
    story = Story(max_loaded=1)
    story.ask("a")
    story.moves("a", State.STARTING, State.STOPPING, State.FAILED, reason="boom")
    assert kinds(story.ask("b")) == [("start", "b")]


def test_an_operators_stop_clears_a_failure() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.STOPPING, State.FAILED, reason="boom")
    assert story.scheduler.stop("a", "restart", now=0) == []
    assert kinds(story.ask("a")) == [("start", "a")]


def test_an_operators_stop_drains_a_worker_in_use() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    assert kinds(story.scheduler.stop("a", "unload", now=0)) == [("stop", "a")]
    assert story.scheduler.stop("a", "unload", now=0) == []
    assert story.moves("a", State.DRAINING) == []
    assert story.scheduler.leases_of("a") == 1
    assert story.go(1) == []
    assert story.scheduler.leases_of("a") == 0


def test_a_request_during_a_stop_waits_for_the_next_start() -> None:
    story = Story().loaded("a")
    story.at(300)
    assert story.ask("a") == []
    assert kinds(story.stops("a")) == [("start", "a")]


def test_a_models_own_keep_alive_replaces_the_default() -> None:
    story = Story()
    story.ask("a", configured=7)
    story.moves("a", State.STARTING, State.READY)
    assert story.scheduler.expires_at("a", now=0) == 7


@pytest.mark.parametrize(
    ("configured", "requested", "before", "after"),
    [
        (None, None, 300, 5),
        (7, None, 7, 7),
        (None, 20, 20, 20),
    ],
)
def test_another_default_keep_alive_applies_where_none_is_set(
    configured: float | None, requested: float | None, before: float, after: float
) -> None:
    story = Story()
    story.ask("a", configured=configured, keep=requested)
    story.moves("a", State.STARTING, State.READY)
    story.go(1)
    assert story.scheduler.expires_at("a", now=0) == before
    assert (
        story.scheduler.change_limits(limits(keep_alive=5), {"a": configured, "b": 1}, now=0) == []
    )
    assert story.scheduler.expires_at("a", now=0) == after


def test_another_limit_applies_to_waiting_requests() -> None:
    story = Story(max_running=1).loaded("a")
    story.ask("a")
    assert story.ask("a") == []
    assert story.scheduler.change_limits(limits(max_running=2), {}, now=0) == [
        Grant(LeaseId(3), "a")
    ]


def test_another_keep_alive_of_the_models_own_counts_at_once() -> None:
    story = Story().loaded("a")
    story.scheduler.change_limits(limits(), {"a": 7}, now=0)
    assert story.scheduler.expires_at("a", now=0) == 7
    assert story.scheduler.deadline() == 7


def test_another_keep_alive_of_the_model_is_for_its_next_request() -> None:
    story = Story().loaded("a")
    story.ask("a", configured=7)
    assert story.scheduler.expires_at("a", now=0) == 7


def test_draining_serves_what_is_loaded_and_loads_nothing() -> None:
    story = Story().loaded("a")
    story.ask("b")
    story.moves("b", State.STARTING)
    [refusal] = story.scheduler.drain(now=0)
    assert isinstance(refusal, Refuse), "who waits for a load would wait for nothing"
    assert (refusal.lease, refusal.error.kind) == (LeaseId(2), "unavailable")
    assert story.ask("a") == [Grant(LeaseId(3), "a")]
    [refusal] = story.ask("c")
    assert isinstance(refusal, Refuse)


def test_draining_a_request_may_still_wait_for_its_turn() -> None:
    story = Story(max_running=1).loaded("a")
    story.ask("a")
    story.scheduler.drain(now=0)
    assert story.ask("a") == []
    assert story.go(2) == [Grant(LeaseId(3), "a")]


def test_closing_refuses_waiting_requests_and_stops_workers() -> None:
    story = Story().loaded("a")
    story.ask("b")
    story.moves("b", State.STARTING)
    decisions = kinds(story.scheduler.close(now=0))
    assert isinstance(decisions[0], Refuse)
    assert decisions[1:] == [("stop", "a"), ("stop", "b")]
    [refusal] = story.ask("a")
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, Unavailable)


def test_a_kept_worker_is_not_stopped_and_serves_to_the_end() -> None:
    story = Story().loaded("a").loaded("b")
    assert kinds(story.scheduler.close(now=0, keep={"a"})) == [("stop", "b")]
    assert isinstance(story.ask("a")[0], Grant)


def test_an_adopted_worker_counts_and_keeps_its_keep_alive() -> None:
    story = Story(Machine(host=10 * GIB + CPU_OVERHEAD + GIB))
    [start] = Story().ask("a", 10)
    assert isinstance(start, Start)
    story.scheduler.adopt(start.plan, keep_alive=7, now=0)
    assert story.ask("b", 10) == [], "no room, and what is on its way is not evicted"
    assert story.go(1) == []
    story.moves("a", State.STARTING, State.READY)
    assert story.scheduler.requested_keep_alive("a") == 7
    assert kinds(story.at(6)) == []
    assert kinds(story.at(7)) == [("stop", "a")]


def test_queries_about_an_unknown_model_have_answers() -> None:
    scheduler = Story().scheduler
    assert scheduler.expires_at("a", now=0) is None
    assert scheduler.requested_keep_alive("a") is None
    assert scheduler.leases_of("a") == 0
    assert scheduler.waiting_for("a") == scheduler.queued == 0


def test_a_request_that_leaves_while_waiting_gets_no_lease() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING)
    story.go(1)
    assert story.moves("a", State.READY) == []
    assert story.scheduler.expires_at("a", now=0) is not None


@pytest.mark.parametrize("keep", [inf, 300.0])
def test_the_deadline_is_never_in_the_past_after_a_tick(keep: float) -> None:
    story = Story(max_loaded=1, queue_timeout=30).loaded("a", keep=keep)
    story.ask("a")
    story.ask("b")
    for now in (10.0, 30.0, 31.0, 1000.0):
        story.at(now)
        assert story.scheduler.deadline() > now


LORA = Lora(name="l", folder="/l", rank=8)


def requested(story: Story, wanted: Spec) -> list[Decision]:
    story.last += 1
    return story.scheduler.arrive(LeaseId(story.last), wanted, keep_alive=None, now=story.now)


def test_a_worker_with_other_files_gets_no_new_lease() -> None:
    story = Story()
    story.ask("a")
    story.moves("a", State.STARTING, State.READY)
    assert requested(story, replace(spec("a"), folder="/new")) == []
    assert story.ask("a") == [], "or the first would never be served"
    assert kinds(story.go(1)) == [("stop", "a")]
    decisions = story.stops("a")
    assert kinds(decisions) == [("start", "a")]
    [start] = decisions
    assert isinstance(start, Start)
    assert start.plan.spec.folder == "/new"


def test_a_worker_that_is_ready_and_idle_makes_way_at_once() -> None:
    story = Story().loaded("a")
    assert kinds(requested(story, replace(spec("a"), loras=(LORA,), lora="l"))) == [("stop", "a")]


def test_a_worker_with_adapters_serves_requests_without_one() -> None:
    story = Story()
    [start] = requested(story, replace(spec("a"), loras=(LORA,), lora="l"))
    assert isinstance(start, Start)
    assert start.plan.spec.lora == "", "the worker is for everybody"
    story.moves("a", State.STARTING, State.READY)
    assert story.ask("a") == [Grant(LeaseId(2), "a")]


def test_a_failure_with_other_adapters_does_not_count() -> None:
    story = Story()
    requested(story, replace(spec("a"), loras=(LORA,)))
    story.moves("a", State.STARTING, State.STOPPING, State.FAILED, reason="boom")
    [refused] = requested(story, replace(spec("a"), loras=(LORA,)))
    assert isinstance(refused, Refuse)
    assert kinds(story.ask("a")) == [("start", "a")]


def test_deleting_a_model_refuses_only_its_own_requests() -> None:
    story = Story(max_loaded=1)
    story.ask("a")
    story.ask("b")
    error = ModelNotFound("gone")
    decisions = story.scheduler.forget("a", error, now=0)
    assert kinds(decisions) == [Refuse(LeaseId(1), error), ("stop", "a")]
    assert story.scheduler.queued == 1
