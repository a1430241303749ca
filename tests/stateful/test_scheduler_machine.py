"""The scheduler under random arrivals, departures, crashes and time: what must hold always does."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from vllamad.core.decisions import Decision, Grant, LeaseId, Refuse, Revoke, Start, Stop
from vllamad.core.launch import Plan, Spec
from vllamad.core.lifecycle import FOLLOWS, OCCUPYING, State, advance
from vllamad.core.memory import CPU_OVERHEAD, GIB, Machine, Need
from vllamad.core.scheduler import Limits, Scheduler

MACHINE = Machine(host=10 * GIB + 3 * CPU_OVERHEAD, cpu_kv_cache=0)
SIZES = {"a": 2, "b": 3, "c": 5, "d": 9, "huge": 99}
LIMITS = Limits(
    keep_alive=60,
    max_loaded=3,
    max_queue=5,
    max_running=2,
    queue_timeout=100,
    failed_cooldown=50,
)


class Daemon(RuleBasedStateMachine):
    """Plays the workers and the clients; remembers what it was told, and judges."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS, MACHINE)
        self.now = 0.0
        self.next_lease = 0
        self.workers: dict[str, State] = {}
        self.plans: dict[str, Plan] = {}
        self.told_to_stop: set[str] = set()
        self.waiting: dict[LeaseId, str] = {}
        self.held: dict[LeaseId, str] = {}

    def carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(plan):
                    assert self.workers.get(plan.model, State.FAILED) is State.FAILED
                    self.workers[plan.model] = State.STOPPED
                    self.plans[plan.model] = plan
                case Stop(model):
                    assert model in self.workers
                    self.told_to_stop.add(model)
                case Grant(lease, model):
                    assert self.workers[model] is State.READY, "a lease on a worker not ready"
                    assert model not in self.told_to_stop, "a lease on a worker told to stop"
                    assert self.waiting.pop(lease) == model
                    self.held[lease] = model
                case Refuse(lease):
                    del self.waiting[lease]
                case Revoke(lease):
                    del self.held[lease]

    @rule(model=st.sampled_from(sorted(SIZES)), keep=st.sampled_from([None, 0.0, 5.0, 500.0]))
    def arrive(self, model: str, keep: float | None) -> None:
        self.next_lease += 1
        lease = LeaseId(self.next_lease)
        self.waiting[lease] = model
        need = Need(weights=SIZES[model] * GIB, context_length=1)
        spec = Spec(model=model, folder=model, need=need)
        self.carry_out(self.scheduler.arrive(lease, spec, keep_alive=keep, now=self.now))

    @precondition(lambda self: self.waiting or self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted([*self.waiting, *self.held])))
        self.waiting.pop(lease, None)
        self.held.pop(lease, None)
        self.carry_out(self.scheduler.leave(lease, now=self.now))

    @precondition(lambda self: any(s is not State.FAILED for s in self.workers.values()))
    @rule(data=st.data())
    def a_worker_moves(self, data: st.DataObject) -> None:
        living = sorted(m for m, s in self.workers.items() if s is not State.FAILED)
        model = data.draw(st.sampled_from(living))
        present = self.workers[model]
        choices = sorted(FOLLOWS[present])
        if model in self.told_to_stop:  # an owner task told to stop goes that way and rests
            choices = [s for s in choices if s not in (State.READY, State.BACKOFF, State.FAILED)]
            choices = [s for s in choices if not (present is State.BACKOFF and s is State.STARTING)]
        elif State.DRAINING in choices or State.STOPPED in choices:
            choices = [s for s in choices if s not in (State.DRAINING, State.STOPPED)]
        if choices:
            self.move(model, data.draw(st.sampled_from(choices)))

    def move(self, model: str, state: State) -> None:
        advance(self.workers[model], state)
        self.workers[model] = state
        if state in (State.STOPPED, State.FAILED):
            self.told_to_stop.discard(model)
        if state is State.STOPPED:
            del self.workers[model]
        self.carry_out(self.scheduler.moved(model, state, reason="r", now=self.now))

    @rule(seconds=st.sampled_from([0.1, 5.0, 60.0, 101.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.scheduler.tick(now=self.now))
        assert self.scheduler.deadline() > self.now

    @rule(model=st.sampled_from(sorted(SIZES)))
    def unload(self, model: str) -> None:
        self.carry_out(self.scheduler.unload(model, now=self.now))

    @rule(model=st.sampled_from(sorted(SIZES)))
    def operator_stops(self, model: str) -> None:
        if self.workers.get(model) is State.FAILED:
            del self.workers[model]
        self.carry_out(self.scheduler.stop(model, "asked", now=self.now))

    @invariant()
    def memory_is_never_promised_twice(self) -> None:
        held = [
            self.plans[model].placement.total
            for model, state in self.workers.items()
            if state in OCCUPYING or state is State.STOPPED
        ]
        assert sum(held) <= MACHINE.host
        assert len(held) <= LIMITS.max_loaded

    @invariant()
    def leases_are_counted_once_and_within_the_limit(self) -> None:
        for model in self.workers:
            held = sum(owner == model for owner in self.held.values())
            assert self.scheduler.leases_of(model) == held <= LIMITS.max_running

    @invariant()
    def one_model_loads_at_a_time(self) -> None:
        fresh = [m for m, s in self.workers.items() if s is State.STOPPED]
        assert len(fresh) <= 1

    @invariant()
    def the_queue_is_bounded_and_agrees_with_ours(self) -> None:
        assert self.scheduler.queued == len(self.waiting) <= LIMITS.max_queue + 1

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        """If everything is at rest and somebody waits, something must be under way for them."""
        if self.waiting and all(s is State.READY for s in self.workers.values()):
            assert self.told_to_stop or self.held


TestScheduler = Daemon.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
