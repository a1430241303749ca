"""The sole owner of the scheduler: feeds it events, carries out its decisions.

Everything here but `run` is synchronous: an event is decided and carried out before anything else
can happen, so no state read elsewhere is ever acted upon.
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
    """Every worker, and everybody who wants one."""

    def __init__(self, scheduler: Scheduler, make_worker: MakeWorker) -> None:
        self._scheduler = scheduler
        self._make_worker = make_worker
        self._workers: dict[str, Worker] = {}
        self._verdicts: dict[LeaseId, trio.MemorySendChannel[Verdict]] = {}
        self._loras: dict[LeaseId, str] = {}  # what each wants of its worker, where it matters
        self._ids = count(1)
        self._changed = trio.Event()
        self._until = inf  # when `run` wakes by itself
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep time for the scheduler and be the home of the workers' tasks, until cancelled."""
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
        """Schedule by other limits from now on; `keep_alives` are the models' own."""
        now = trio.current_time()
        self._carry_out(self._scheduler.change_limits(limits, keep_alives, now=now))

    def requested_keep_alive(self, model: str) -> float | None:
        """What a request has asked for, if one has."""
        return self._scheduler.requested_keep_alive(model)

    def drain(self) -> None:
        """Serve on with what is loaded, and load nothing any more."""
        self._carry_out(self._scheduler.drain(now=trio.current_time()))

    async def close(self, *, keep: bool = False) -> None:
        """Refuse who waits, stop every worker, and return when the last one is gone.

        With `keep`, those that can outlive us are not stopped: they do when `run` is cancelled.
        """
        kept = {
            model for model, worker in self._workers.items() if keep and worker.survives_restart
        }
        self._carry_out(self._scheduler.close(now=trio.current_time(), keep=kept))
        for model, worker in list(self._workers.items()):
            if model not in kept:
                await worker.gone.wait()

    def adopt(self, plan: Plan, keep_alive: float | None) -> None:
        """Go on with a worker of a daemon before us."""
        self._scheduler.adopt(plan, keep_alive=keep_alive, now=trio.current_time())
        event(log, logging.INFO, "worker adopted", LogEvent.WORKER_ADOPTED, model=plan.model)
        self._start(plan)

    @asynccontextmanager
    async def lease(self, spec: Spec, keep_alive: float | None) -> AsyncGenerator[Verdicts]:
        """Ask for one worker; what comes of it is told on the channel. Leaving ends the lease."""
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
        """Load `spec` and keep it, until it is unloaded or evicted. Raises what refuses it."""
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
        """Plan for `machine` from now on; the device changes with the runtime in use."""
        self._scheduler.machine = machine

    def unload(self, model: str) -> None:
        """Let `model` go when idle; requests under way finish."""
        self._carry_out(self._scheduler.unload(model, now=trio.current_time()))

    async def stop(self, model: str, why: str) -> bool:
        """Drain and stop `model`, and return when its group is empty; False: it was not loaded."""
        worker = self._workers.get(model)
        self._carry_out(self._scheduler.stop(model, why, now=trio.current_time()))
        if worker is None:
            return False
        await worker.gone.wait()
        if self._workers.get(model) is worker:  # it failed: one that stopped has left by itself
            del self._workers[model]
            self._carry_out(self._scheduler.stop(model, why, now=trio.current_time()))
        return True

    async def forget(self, model: str, error: VllamadError) -> None:
        """Refuse with `error` who waits for `model`, and stop it for good."""
        self._carry_out(self._scheduler.forget(model, error, now=trio.current_time()))
        await self.stop(model, "it is being removed")

    def outdated(self, spec: Spec) -> bool:
        """Is there a worker, started with anything else than `spec` says now?"""
        worker = self._workers.get(spec.model)
        return worker is not None and not worker.plan.spec.serves(spec)

    def worker(self, model: str) -> Worker | None:
        return self._workers.get(model)

    def workers(self) -> list[WorkerInfo]:
        """Every worker there is, or that failed, as people are shown it."""
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
        """A worker's owner task has moved it; told before anything else can run."""
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
                    self._tell(lease, self._granted(lease, model))
                case Refuse(lease, error):
                    self._tell(lease, Refused(problem=Problem.of(error)))
                case Revoke(lease, reason):
                    self._tell(lease, Revoked(reason=reason))
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

    def _tell(self, lease: LeaseId, verdict: Verdict) -> None:
        # Nobody is there to be told when the connection that asked is being torn down.
        if channel := self._verdicts.get(lease):
            channel.send_nowait(verdict)
