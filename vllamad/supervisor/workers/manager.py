"""Owns the scheduler: feeds it events and carries out its decisions.

Everything here but `run` is synchronous: a decision is carried out before the next event can
happen, so no action depends on an outdated state.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from math import inf

import trio

from vllamad.core.decisions import Decision, Grant, LeaseId, Refuse, Revoke, Start, Stop
from vllamad.core.launch import Plan, Spec
from vllamad.core.lifecycle import State
from vllamad.core.memory import Machine
from vllamad.core.scheduler import Limits, Scheduler
from vllamad.errors import LoadFailed, Unavailable, VllamadError
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.protocol.control import WorkerInfo
from vllamad.protocol.lease import Granted, Refused, Revoked, Waiting
from vllamad.protocol.problem import Problem
from vllamad.supervisor.workers.worker import Worker

log = logging.getLogger(__name__)

Verdict = Waiting | Granted | Refused | Revoked
Verdicts = trio.MemoryReceiveChannel[Verdict]
MakeWorker = Callable[[Plan, Callable[[Worker], None]], Worker]


class WorkerManager:
    """All workers, and all leases on them."""

    def __init__(self, scheduler: Scheduler, make_worker: MakeWorker) -> None:
        self._scheduler = scheduler
        self._make_worker = make_worker
        self._workers: dict[str, Worker] = {}
        self._verdicts: dict[LeaseId, trio.MemorySendChannel[Verdict]] = {}
        self._loras: dict[LeaseId, str] = {}  # the adapter that each lease names, empty for none
        self._ids = count(1)
        self._changed = trio.Event()
        self._until = inf  # when `run` wakes without an event
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the scheduler's deadlines and the workers' tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                self._changed = trio.Event()
                self._until = self._scheduler.deadline()
                with trio.move_on_at(self._until):
                    await self._changed.wait()
                self._carry_out(self._scheduler.tick(now=trio.current_time()))

    def change_limits(self, limits: Limits, keep_alives: Mapping[str, float | None]) -> None:
        """Use other limits from now on; `keep_alives` are those that models configure."""
        now = trio.current_time()
        self._carry_out(self._scheduler.change_limits(limits, keep_alives, now=now))

    def requested_keep_alive(self, model: str) -> float | None:
        """The keep-alive that a request has set, None if none has."""
        return self._scheduler.requested_keep_alive(model)

    def drain(self) -> None:
        """Serve with the loaded models, and load no other."""
        self._carry_out(self._scheduler.drain(now=trio.current_time()))

    async def close(self, *, hand_over: bool = False) -> None:
        """Refuse waiting requests, stop every worker, and return when the last one is gone.

        With `hand_over`, workers that survive a restart are not stopped: they run on when `run`
        is cancelled.
        """
        surviving = {
            model
            for model, worker in self._workers.items()
            if hand_over and worker.survives_restart
        }
        self._carry_out(self._scheduler.close(now=trio.current_time(), keep=surviving))
        for model, worker in list(self._workers.items()):
            if model not in surviving:
                await worker.gone.wait()

    def adopt(self, plan: Plan, keep_alive: float | None) -> None:
        """Adopt a worker of a previous daemon."""
        self._scheduler.adopt(plan, keep_alive=keep_alive, now=trio.current_time())
        event(log, logging.INFO, "worker adopted", LogEvent.WORKER_ADOPTED, model=plan.model)
        self._start(plan)

    @asynccontextmanager
    async def lease(self, spec: Spec, keep_alive: float | None) -> AsyncGenerator[Verdicts]:
        """Request a lease; its verdicts arrive on the channel. Leaving the block ends the lease."""
        lease = LeaseId(next(self._ids))
        send, receive = trio.open_memory_channel[Verdict](inf)
        self._verdicts[lease] = send
        self._loras[lease] = spec.lora
        try:
            now = trio.current_time()
            self._carry_out(self._scheduler.arrive(lease, spec, keep_alive=keep_alive, now=now))
            if lease in self._verdicts and not receive.statistics().current_buffer_used:
                send.send_nowait(Waiting(why=self._scheduler.why_waiting(lease)))
            yield receive
        finally:
            self._verdicts.pop(lease, None)
            del self._loras[lease]
            self._carry_out(self._scheduler.leave(lease, now=trio.current_time()))

    async def load(self, spec: Spec, keep_alive: float | None = inf) -> None:
        """Load `spec`; it stays until it is unloaded or evicted. Raises the refusal."""
        async with self.lease(spec, keep_alive) as verdicts:
            async for verdict in verdicts:
                match verdict:
                    case Granted():
                        return
                    case Refused(problem=problem):
                        raise problem.error()
                    case _:
                        pass  # still waiting

    def measured(self, machine: Machine) -> None:
        """Plan for `machine` from now on; its device depends on the runtime in use."""
        self._scheduler.machine = machine

    def unload(self, model: str) -> None:
        """Unload `model` once it is idle; running requests finish."""
        self._carry_out(self._scheduler.unload(model, now=trio.current_time()))

    async def stop(self, model: str, why: str) -> bool:
        """Drain and stop `model`; return when its group is empty. False if it was not loaded."""
        worker = self._workers.get(model)
        self._carry_out(self._scheduler.stop(model, why, now=trio.current_time()))
        if worker is None:
            return False
        await worker.gone.wait()
        if self._workers.get(model) is worker:  # it failed: a stopped one has removed itself
            del self._workers[model]
            self._carry_out(self._scheduler.stop(model, why, now=trio.current_time()))
        return True

    async def forget(self, model: str, error: VllamadError) -> None:
        """Refuse the requests that wait for `model` with `error`, and stop it."""
        self._carry_out(self._scheduler.forget(model, error, now=trio.current_time()))
        await self.stop(model, "it is being removed")

    def outdated(self, spec: Spec) -> bool:
        """Whether `model` has a worker that was started with another spec."""
        worker = self._workers.get(spec.model)
        return worker is not None and not worker.plan.spec.serves(spec)

    def worker(self, model: str) -> Worker | None:
        return self._workers.get(model)

    def workers(self) -> list[WorkerInfo]:
        """All workers, failed ones too, for the control API."""
        return [self._info(worker) for worker in self._workers.values()]

    @property
    def queued(self) -> int:
        return self._scheduler.queued

    def _info(self, worker: Worker) -> WorkerInfo:
        model, now = worker.model, trio.current_time()
        expires_at = self._scheduler.expires_at(model, now=now)
        plan, placement = worker.plan, worker.plan.placement
        return WorkerInfo(
            model=model,
            state=worker.state,
            size=worker.usage.memory or placement.total,
            size_peak=worker.usage.memory_peak,
            cpu_seconds=worker.usage.cpu,
            size_vram=placement.total if placement.devices else 0,
            context_length=worker.context_length,
            dtype=plan.spec.numbers.name if plan.threads else "",
            dtype_why=plan.spec.numbers.why if plan.threads else "",
            threads=plan.threads,
            expires_in=None if expires_at in (None, inf) else expires_at - now,
            leases=self._scheduler.leases_of(model),
            waiting=self._scheduler.waiting_for(model),
            pid=worker.pid,
            since=now - worker.since,
            load_phase=worker.load_phase,
            restarts=worker.restarts,
            reason=worker.reason,
            log_file=str(worker.log_file),
        )

    def _moved(self, worker: Worker) -> None:
        """React to a changed state of a worker, before any other task runs."""
        if worker.state is State.STOPPED:
            self._workers.pop(worker.model, None)
        now = trio.current_time()
        self._carry_out(
            self._scheduler.moved(worker.model, worker.state, reason=worker.reason, now=now)
        )

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(plan):
                    event(
                        log,
                        logging.INFO,
                        "load",
                        LogEvent.WORKER_LOAD,
                        model=plan.model,
                        memory=plan.placement.total,
                    )
                    self._start(plan)
                case Stop(model, why):
                    self._workers[model].stop(why)
                case Grant(lease, model):
                    self._send(lease, self._granted(lease, model))
                case Refuse(lease, error):
                    self._send(lease, Refused(problem=Problem.of(error)))
                case Revoke(lease, reason):
                    self._send(lease, Revoked(reason=reason))
        for model, worker in self._workers.items():
            worker.note_leases(self._scheduler.leases_of(model))
            worker.record_keep_alive(self._scheduler.requested_keep_alive(model))
        if self._scheduler.deadline() < self._until:
            self._changed.set()

    def _start(self, plan: Plan) -> None:
        if self._nursery is None:
            raise Unavailable("vllamad is not up yet")
        worker = self._workers[plan.model] = self._make_worker(plan, self._moved)
        self._nursery.start_soon(worker.run)

    def _granted(self, lease: LeaseId, model: str) -> Granted | Refused:
        worker = self._workers[model]
        lora = self._loras[lease]
        if lora and not worker.plan.has_lora(lora):
            error = LoadFailed(
                f"cannot load the adapter: {worker.lora_problem}",
                hint="`vllamactl model restart` tries again",
            )
            return Refused(problem=Problem.of(error))
        return Granted(
            endpoint=str(worker.endpoint),
            served_name=lora or model,
            context_length=worker.context_length,
            tools=worker.plan.spec.tool_parser is not None,
            thinking=worker.plan.spec.reasoning_parser is not None,
        )

    def _send(self, lease: LeaseId, verdict: Verdict) -> None:
        # A lease whose connection is being closed has no channel any more.
        if channel := self._verdicts.get(lease):
            channel.send_nowait(verdict)
