"""Requests, loads and leases: an event in, decisions out.

The scheduler owns who waits, who is served and which worker should live. It is synchronous and
has no I/O and no clock: every method takes `now` (monotonic seconds) and returns what the caller
must do. Requests are served first come, first served; one model loads at a time, because an engine
that measures free memory must not see another one grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from vllamad.core.decisions import Decision, Grant, LeaseId, Refuse, Revoke, Start, Stop
from vllamad.core.eviction import Resident, evict_for
from vllamad.core.launch import Plan, Spec, does_not_fit
from vllamad.core.lifecycle import OCCUPYING, State
from vllamad.core.memory import Machine, find_placement
from vllamad.errors import LoadFailed, ServerBusy, Unavailable, VllamadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The scheduler's settings; durations in seconds."""

    keep_alive: float
    max_loaded: int
    max_queue: int
    max_running: int
    queue_timeout: float
    failed_cooldown: float


@dataclass(slots=True)
class _Slot:
    """What is known of one model's worker."""

    plan: Plan
    default_keep_alive: float  # the model's own, or everybody's
    used_at: float
    asked_keep_alive: float | None = None  # what the last request that asked for one wants
    state: State = State.STOPPED
    stopping: bool = False  # told to stop, whether or not it moved yet
    reason: str = ""
    failed_at: float = -inf
    leases: set[LeaseId] = field(default_factory=set[LeaseId])

    @property
    def keep_alive(self) -> float:
        asked = self.asked_keep_alive
        return self.default_keep_alive if asked is None else asked

    @property
    def expires_at(self) -> float:
        return inf if self.leases else self.used_at + self.keep_alive

    @property
    def occupies(self) -> bool:
        return self.state in OCCUPYING or self.state is State.STOPPED


@dataclass(slots=True)
class _Waiter:
    lease: LeaseId
    spec: Spec
    arrived: float
    keep_alive: float | None


class Scheduler:
    """See the module. Not safe for two tasks: `supervisor/workers/manager.py` alone calls it."""

    def __init__(self, limits: Limits, machine: Machine) -> None:
        self.limits = limits
        self.machine = machine
        self._slots: dict[str, _Slot] = {}
        self._waiting: dict[LeaseId, _Waiter] = {}
        self._holding: dict[LeaseId, str] = {}
        self._closing = False  # the daemon is going: nobody new

    # Events

    def arrive(
        self, lease: LeaseId, spec: Spec, *, keep_alive: float | None, now: float
    ) -> list[Decision]:
        """Somebody wants to use `spec`. `keep_alive` sticks to the worker once it is granted."""
        self._waiting[lease] = _Waiter(lease, spec, now, keep_alive)
        decisions = self._settle(now)
        # Ollama's rule: the queue holds `max_queue` beside the one being served.
        if lease in self._waiting and len(self._waiting) > self.limits.max_queue + 1:
            del self._waiting[lease]
            decisions.append(Refuse(lease, ServerBusy()))
        return decisions

    def leave(self, lease: LeaseId, *, now: float) -> list[Decision]:
        """The holder, or the waiter, is gone."""
        self._waiting.pop(lease, None)
        model = self._holding.pop(lease, None)
        if model is not None and (slot := self._slots.get(model)):
            slot.leases.discard(lease)
            slot.used_at = now
        return self._settle(now)

    def moved(self, model: str, state: State, *, reason: str = "", now: float) -> list[Decision]:
        """The worker of `model` is now in `state`; `reason` says why, where it failed."""
        slot = self._slots[model]
        slot.state = state
        decisions: list[Decision] = []
        if state not in (State.READY, State.DRAINING):
            for lease in sorted(slot.leases):
                self._holding.pop(lease, None)
                decisions.append(Revoke(lease, reason))
            slot.leases.clear()
        if state is State.READY:
            slot.used_at = now
        elif state is State.FAILED:
            slot.stopping, slot.reason, slot.failed_at = False, reason, now
        elif state is State.STOPPED:
            del self._slots[model]
        return decisions + self._settle(now)

    def unload(self, model: str, *, now: float) -> list[Decision]:
        """Let `model` go as soon as nobody uses it, as Ollama's keep_alive 0 does."""
        slot = self._slots.get(model)
        if slot is None:
            return []
        slot.asked_keep_alive = 0.0
        return self._settle(now)

    def stop(self, model: str, why: str, *, now: float) -> list[Decision]:
        """An operator's order: drain `model` now, whoever uses it. Clears a failure."""
        slot = self._slots.get(model)
        if slot is None or slot.stopping:
            return []
        if slot.state is State.FAILED:
            del self._slots[model]
            return self._settle(now)
        slot.stopping = True
        return [Stop(model, why)]

    def forget(self, model: str, error: VllamadError, *, now: float) -> list[Decision]:
        """`model` is going for good: refuse who waits for it, and drain it."""
        decisions: list[Decision] = []
        for lease, waiter in list(self._waiting.items()):
            if waiter.spec.model == model:
                del self._waiting[lease]
                decisions.append(Refuse(lease, error))
        return decisions + self.stop(model, "it is being removed", now=now)

    def relimit(
        self, limits: Limits, keep_alives: Mapping[str, float | None], *, now: float
    ) -> list[Decision]:
        """Other limits from now on, for who waits and for what is loaded too.

        `keep_alives` are those that models have of their own.
        """
        self.limits = limits
        for model, slot in self._slots.items():
            if model in keep_alives:
                slot.default_keep_alive = self._default_keep_alive(keep_alives[model])
        return self._settle(now)

    def adopt(self, plan: Plan, *, keep_alive: float | None, now: float) -> None:
        """A worker of a daemon before us lives; `keep_alive` is what was last asked of it."""
        self._start(plan, now)
        self._slots[plan.model].asked_keep_alive = keep_alive

    def drain(self, *, now: float) -> list[Decision]:
        """The daemon is going: what is loaded serves on, nothing is loaded any more."""
        self._closing = True
        return self._settle(now)

    def close(self, *, now: float, keep: Collection[str] = ()) -> list[Decision]:
        """The daemon is going: refuse who waits, stop every worker but those of `keep`."""
        decisions = self.drain(now=now)
        for model in [model for model in self._slots if model not in keep]:
            decisions += self.stop(model, "vllamad is shutting down", now=now)
        return decisions + self._settle(now)

    def tick(self, *, now: float) -> list[Decision]:
        """Time has passed; call it at `deadline()`."""
        return self._settle(now)

    # Questions

    def deadline(self) -> float:
        """When `tick` has something to do next; infinite if only an event can."""
        wanted = self._wanted()
        expiries = (
            slot.expires_at
            for model, slot in self._slots.items()
            if _may_expire(slot) and model not in wanted
        )
        patience = (
            waiter.arrived + self.limits.queue_timeout
            for waiter in self._waiting.values()
            if not self._is_coming_up(waiter.spec.model)
        )
        return min((*expiries, *patience), default=inf)

    def waiting_for(self, model: str) -> int:
        return sum(waiter.spec.model == model for waiter in self._waiting.values())

    def why_waiting(self, lease: LeaseId) -> str:
        """In a word: loading, or queued behind others."""
        waiter = self._waiting[lease]
        return "loading" if self._is_coming_up(waiter.spec.model) else "queued"

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def expires_at(self, model: str, *, now: float) -> float | None:
        """Monotonic seconds at which `model` may go, counted from `now` while it is in use."""
        slot = self._slots.get(model)
        return None if slot is None else slot.keep_alive + (now if slot.leases else slot.used_at)

    def asked_keep_alive(self, model: str) -> float | None:
        """What the last request that said so wants; None: the default."""
        slot = self._slots.get(model)
        return slot.asked_keep_alive if slot else None

    def leases_of(self, model: str) -> int:
        slot = self._slots.get(model)
        return len(slot.leases) if slot else 0

    # The one place where things are decided

    def _settle(self, now: float) -> list[Decision]:
        return list(self._decide(now))

    def _decide(self, now: float) -> Iterator[Decision]:
        yield from self._expire(now)
        held_back: set[str] = set()  # busy workers that must make way for somebody before you
        blocked = False  # somebody before you waits for a load
        for waiter in list(self._waiting.values()):
            if waiter.lease not in self._waiting:
                continue  # refused with another who wanted the same
            model, slot = waiter.spec.model, self._slots.get(waiter.spec.model)
            fits = slot is not None and slot.plan.spec.serves(waiter.spec)
            if slot is not None and fits and self._serves(slot) and model not in held_back:
                yield self._grant(waiter, slot, now)
            elif error := self._hopeless(waiter, slot, now):
                del self._waiting[waiter.lease]
                yield Refuse(waiter.lease, error)
            elif slot is not None and not fits and slot.state is not State.FAILED:
                held_back.add(model)
                if _may_expire(slot) and not slot.leases:
                    slot.stopping = True
                    yield Stop(model, "its files or settings are others now")
            elif not blocked and (slot is None or slot.state is State.FAILED):
                yield from self._load(waiter, held_back, now)
                blocked = waiter.lease in self._waiting

    def _expire(self, now: float) -> Iterator[Decision]:
        wanted = self._wanted()
        for model, slot in self._slots.items():
            if _may_expire(slot) and slot.expires_at <= now and model not in wanted:
                slot.stopping = True
                yield Stop(model, "idle for its keep-alive")

    def _wanted(self) -> set[str]:
        return {waiter.spec.model for waiter in self._waiting.values()}

    def _may_serve(self, slot: _Slot) -> bool:
        return slot.state is State.READY and not slot.stopping

    def _serves(self, slot: _Slot) -> bool:
        return self._may_serve(slot) and len(slot.leases) < self.limits.max_running

    def _grant(self, waiter: _Waiter, slot: _Slot, now: float) -> Grant:
        del self._waiting[waiter.lease]
        slot.leases.add(waiter.lease)
        slot.used_at = now
        slot.default_keep_alive = self._default_keep_alive(waiter.spec.keep_alive)
        if waiter.keep_alive is not None:
            slot.asked_keep_alive = waiter.keep_alive
        self._holding[waiter.lease] = waiter.spec.model
        return Grant(waiter.lease, waiter.spec.model)

    def _hopeless(self, waiter: _Waiter, slot: _Slot | None, now: float) -> VllamadError | None:
        """Why this waiter should not wait any longer, if so."""
        if self._closing and not (slot and self._may_serve(slot)):
            return Unavailable("vllamad is shutting down", hint="try again shortly")
        if slot is not None and slot.state is State.FAILED:
            # What failed with other files or settings says nothing of these.
            same = slot.plan.spec.starts_like(waiter.spec)
            if same and now < slot.failed_at + self.limits.failed_cooldown:
                return LoadFailed(
                    f"cannot load {waiter.spec.model}: {slot.reason}",
                    hint="see `vllamactl logs`, then `vllamactl model load` to try again",
                )
        elif self._is_coming_up(waiter.spec.model):
            return None
        if now >= waiter.arrived + self.limits.queue_timeout:
            return ServerBusy()
        return None

    def _is_coming_up(self, model: str) -> bool:
        slot = self._slots.get(model)
        return slot is not None and slot.state in (
            State.STOPPED,
            State.STARTING,
            State.BACKOFF,
        )

    def _load(self, waiter: _Waiter, held_back: set[str], now: float) -> Iterator[Decision]:
        """Start the worker this waiter needs, or make room for it, or refuse who wants it."""
        occupying = {model: slot for model, slot in self._slots.items() if slot.occupies}
        starting = (State.STOPPED, State.STARTING)
        if any(slot.state in starting for slot in occupying.values()):
            return
        placement = find_placement(
            waiter.spec.need, self.machine, [slot.plan.placement for slot in occupying.values()]
        )
        cap = self.limits.max_loaded
        if placement is not None and not (cap and len(occupying) >= cap):
            spec = replace(waiter.spec, lora="")  # the worker is for everybody
            yield self._start(Plan(spec=spec, placement=placement), now)
            return
        victims = evict_for(waiter.spec.need, self.machine, self._residents(), cap)
        if victims is None:
            yield from self._refuse_all(waiter.spec)
            return
        for model in victims:
            slot = self._slots[model]
            if slot.leases:
                held_back.add(model)
            else:
                slot.stopping = True
                yield Stop(model, f"evicted for {waiter.spec.model}")

    def _start(self, plan: Plan, now: float) -> Start:
        default = self._default_keep_alive(plan.spec.keep_alive)
        self._slots[plan.model] = _Slot(plan=plan, default_keep_alive=default, used_at=now)
        return Start(plan)

    def _default_keep_alive(self, own: float | None) -> float:
        return self.limits.keep_alive if own is None else own

    def _residents(self) -> list[Resident]:
        return [
            Resident(
                model=model,
                placement=slot.plan.placement,
                leases=len(slot.leases),
                keep_alive=slot.keep_alive,
                used_at=slot.used_at,
                leaving=slot.stopping or slot.state in (State.DRAINING, State.STOPPING),
            )
            for model, slot in self._slots.items()
            if slot.occupies
        ]

    def _refuse_all(self, spec: Spec) -> Iterator[Decision]:
        error = does_not_fit(spec, self.machine)
        for waiter in list(self._waiting.values()):
            if waiter.spec.model == spec.model:
                del self._waiting[waiter.lease]
                yield Refuse(waiter.lease, error)


def _may_expire(slot: _Slot) -> bool:
    return slot.state in (State.READY, State.BACKOFF) and not slot.stopping
