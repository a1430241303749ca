"""The scheduler of requests, loads and leases: each event returns decisions.

It owns the queue, the leases and the choice of the loaded models. It is synchronous, with no I/O
and no clock: every method takes `now` (monotonic seconds) and returns the decisions that the caller
must carry out. Requests are served first come, first served; one model loads at a time, because an
engine that measures free memory must not see another one grow.
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
    """The state of the worker of one model."""

    plan: Plan
    default_keep_alive: float  # of the model's configuration, else of the daemon
    used_at: float
    requested_keep_alive: float | None = None  # of the last request that set one
    state: State = State.STOPPED
    stopping: bool = False  # a Stop was returned; the state may not have changed yet
    reason: str = ""
    failed_at: float = -inf
    leases: set[LeaseId] = field(default_factory=set[LeaseId])

    @property
    def keep_alive(self) -> float:
        requested = self.requested_keep_alive
        return self.default_keep_alive if requested is None else requested

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
    """See the module. Not task-safe: only `supervisor/workers/manager.py` calls it."""

    def __init__(self, limits: Limits, machine: Machine) -> None:
        self.limits = limits
        self.machine = machine
        self._slots: dict[str, _Slot] = {}
        self._waiting: dict[LeaseId, _Waiter] = {}
        self._holding: dict[LeaseId, str] = {}
        self._closing = False  # the daemon is shutting down: no new loads

    # Events

    def arrive(
        self, lease: LeaseId, spec: Spec, *, keep_alive: float | None, now: float
    ) -> list[Decision]:
        """A request for a lease on `spec`. Once granted, `keep_alive` applies to the worker."""
        self._waiting[lease] = _Waiter(lease, spec, now, keep_alive)
        decisions = self._settle(now)
        # Ollama's rule: the queue holds `max_queue` in addition to the request being served.
        if lease in self._waiting and len(self._waiting) > self.limits.max_queue + 1:
            del self._waiting[lease]
            decisions.append(Refuse(lease, ServerBusy()))
        return decisions

    def leave(self, lease: LeaseId, *, now: float) -> list[Decision]:
        """A request has ended, whether its lease was granted or not."""
        self._waiting.pop(lease, None)
        model = self._holding.pop(lease, None)
        if model is not None and (slot := self._slots.get(model)):
            slot.leases.discard(lease)
            slot.used_at = now
        return self._settle(now)

    def moved(self, model: str, state: State, *, reason: str = "", now: float) -> list[Decision]:
        """The worker of `model` is now in `state`; `reason` explains a failure."""
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
        """Stop the worker of `model` as soon as it is idle, as Ollama's keep_alive 0 does."""
        slot = self._slots.get(model)
        if slot is None:
            return []
        slot.requested_keep_alive = 0.0
        return self._settle(now)

    def stop(self, model: str, why: str, *, now: float) -> list[Decision]:
        """Drain `model` now, even if it is in use, by an operator's order. Clears a failure."""
        slot = self._slots.get(model)
        if slot is None or slot.stopping:
            return []
        if slot.state is State.FAILED:
            del self._slots[model]
            return self._settle(now)
        slot.stopping = True
        return [Stop(model, why)]

    def forget(self, model: str, error: VllamadError, *, now: float) -> list[Decision]:
        """`model` is being deleted: refuse the requests that wait for it, and drain it."""
        decisions: list[Decision] = []
        for lease, waiter in list(self._waiting.items()):
            if waiter.spec.model == model:
                del self._waiting[lease]
                decisions.append(Refuse(lease, error))
        return decisions + self.stop(model, "it is being removed", now=now)

    def change_limits(
        self, limits: Limits, keep_alives: Mapping[str, float | None], *, now: float
    ) -> list[Decision]:
        """Apply other limits to new and waiting requests and to loaded models.

        `keep_alives` are the configured ones of models; None for the default.
        """
        self.limits = limits
        for model, slot in self._slots.items():
            if model in keep_alives:
                slot.default_keep_alive = self._default_keep_alive(keep_alives[model])
        return self._settle(now)

    def adopt(self, plan: Plan, *, keep_alive: float | None, now: float) -> None:
        """Take over the worker of a previous daemon; `keep_alive` is the last one requested."""
        self._start(plan, now)
        self._slots[plan.model].requested_keep_alive = keep_alive

    def drain(self, *, now: float) -> list[Decision]:
        """The daemon is draining: loaded models go on serving, and no model is loaded."""
        self._closing = True
        return self._settle(now)

    def close(self, *, now: float, keep: Collection[str] = ()) -> list[Decision]:
        """The daemon is shutting down: refuse waiting requests, stop all workers but `keep`."""
        decisions = self.drain(now=now)
        for model in [model for model in self._slots if model not in keep]:
            decisions += self.stop(model, "vllamad is shutting down", now=now)
        return decisions + self._settle(now)

    def tick(self, *, now: float) -> list[Decision]:
        """Time has passed; called at `deadline()`."""
        return self._settle(now)

    # Queries

    def deadline(self) -> float:
        """The time of the next `tick`; infinite if only an event changes anything."""
        requested_models = self._requested_models()
        expiries = (
            slot.expires_at
            for model, slot in self._slots.items()
            if _may_expire(slot) and model not in requested_models
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
        """`loading`, or `queued` behind other requests."""
        waiter = self._waiting[lease]
        return "loading" if self._is_coming_up(waiter.spec.model) else "queued"

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def expires_at(self, model: str, *, now: float) -> float | None:
        """Monotonic seconds at which `model` expires, counted from `now` while it is in use."""
        slot = self._slots.get(model)
        return None if slot is None else slot.keep_alive + (now if slot.leases else slot.used_at)

    def requested_keep_alive(self, model: str) -> float | None:
        """The keep-alive of the last request that set one; None: the default."""
        slot = self._slots.get(model)
        return slot.requested_keep_alive if slot else None

    def leases_of(self, model: str) -> int:
        slot = self._slots.get(model)
        return len(slot.leases) if slot else 0

    # Decisions

    def _settle(self, now: float) -> list[Decision]:
        return list(self._decide(now))

    def _decide(self, now: float) -> Iterator[Decision]:
        yield from self._expire(now)
        held_back: set[str] = set()  # busy workers that must make way for an earlier request
        blocked = False  # an earlier request waits for a load
        for waiter in list(self._waiting.values()):
            if waiter.lease not in self._waiting:
                continue  # refused together with an earlier request for the same model
            model, slot = waiter.spec.model, self._slots.get(waiter.spec.model)
            fits = slot is not None and slot.plan.spec.serves(waiter.spec)
            if slot is not None and fits and self._serves(slot) and model not in held_back:
                yield self._grant(waiter, slot, now)
            elif error := self._refusal_of(waiter, slot, now):
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
        requested_models = self._requested_models()
        for model, slot in self._slots.items():
            if _may_expire(slot) and slot.expires_at <= now and model not in requested_models:
                slot.stopping = True
                yield Stop(model, "idle for its keep-alive")

    def _requested_models(self) -> set[str]:
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
            slot.requested_keep_alive = waiter.keep_alive
        self._holding[waiter.lease] = waiter.spec.model
        return Grant(waiter.lease, waiter.spec.model)

    def _refusal_of(self, waiter: _Waiter, slot: _Slot | None, now: float) -> VllamadError | None:
        """The error that ends the wait of this request; None to wait on."""
        if self._closing and not (slot and self._may_serve(slot)):
            return Unavailable("vllamad is shutting down", hint="try again shortly")
        if slot is not None and slot.state is State.FAILED:
            # A failure with other files or settings does not count for these.
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
        """Start the worker that this request needs, make room for it, or refuse the request."""
        occupying = {model: slot for model, slot in self._slots.items() if slot.occupies}
        starting = (State.STOPPED, State.STARTING)
        if any(slot.state in starting for slot in occupying.values()):
            return
        placement = find_placement(
            waiter.spec.need, self.machine, [slot.plan.placement for slot in occupying.values()]
        )
        cap = self.limits.max_loaded
        if placement is not None and not (cap and len(occupying) >= cap):
            spec = replace(waiter.spec, lora="")  # the worker serves requests for any adapter
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

    def _default_keep_alive(self, configured: float | None) -> float:
        return self.limits.keep_alive if configured is None else configured

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
