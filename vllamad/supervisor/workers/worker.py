"""One worker, from its first start to its last stop.

`Worker.run` is the owner task: nothing else changes a worker's state. It knows neither other
workers nor requests; it reports its state, and the worker manager acts on it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from vllamad.config.settings import SchedulerSettings, WorkerSettings
from vllamad.core.kv_cache import whole_blocks
from vllamad.core.launch import Plan
from vllamad.core.lifecycle import (
    Ending,
    GiveUp,
    Retry,
    Rules,
    State,
    StayStopped,
    advance,
    decide_after_ending,
)
from vllamad.engine.reasons import admitted_length, is_deterministic, refuses_parsers
from vllamad.errors import VllamadError
from vllamad.host.log import event, named
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.process_group import ResourceUsage
from vllamad.host.tasks import first_of

log = logging.getLogger(__name__)

_ENTERED = {state: f"worker {state}" for state in State}  # the message for each state


class EngineProcess(Protocol):
    """One started engine, as its worker uses it."""

    endpoint: Path

    @property
    def pid(self) -> int: ...

    @property
    def load_phase(self) -> str:
        """The step that its load has reached, in words."""
        ...

    async def wait_exited(self) -> str:
        """Wait until it has died or cannot start any more; return the reason in one line."""
        ...

    async def wait_ready(self) -> int:
        """Wait until it has made a token; return the context length it uses."""
        ...

    async def wait_unhealthy(self) -> str:
        """Wait until it dies, is unresponsive or stuck; return the reason in one line."""
        ...

    async def usage(self) -> ResourceUsage:
        """Main memory and processor time of its processes."""
        ...

    def kill_without_grace(self) -> None:
        """Skip SIGTERM when its block is left: it is dead already, or ignores signals."""
        ...

    @property
    def survives_restart(self) -> bool:
        """Whether it runs on when its block is left by the daemon's cancellation."""
        ...

    async def hand_to_fd_store(
        self, plan: Plan, *, context_length: int, keep_alive: float | None
    ) -> None:
        """Let systemd keep it across a restart of the daemon, where `keep_workers` is on."""
        ...

    def record_keep_alive(self, keep_alive: float | None) -> None:
        """Record the keep-alive, so that the next daemon can restore it."""
        ...


class EngineLauncher(Protocol):
    """Starts engines: the real one is in `supervisor/workers/engine_process.py`."""

    def log_file(self, model: str) -> Path: ...

    def explained(self, plan: Plan) -> Mapping[str, object]:
        """How an engine for `plan` computes and why, for the log."""
        ...

    def live(self, plan: Plan) -> AbstractAsyncContextManager[EngineProcess]:
        """Start an engine; leaving the block ends it, and returns when its group is empty."""
        ...


@dataclass(frozen=True, slots=True)
class _StopRequested:
    """The worker was told to stop."""


class Worker:
    """One supervised vLLM process group and its owner task."""

    def __init__(
        self,
        plan: Plan,
        launcher: EngineLauncher,
        settings: WorkerSettings,
        scheduler: SchedulerSettings,
        moved: Callable[[Worker], None],
    ) -> None:
        self.plan = plan
        self.state = State.STOPPED
        self.since = trio.current_time()
        self.pid: int | None = None
        self.endpoint: Path | None = None
        self.context_length = plan.spec.context_length
        self.usage = ResourceUsage(0)
        self.reason = ""
        self.restarts = 0
        self.lora_problem = ""  # why it was started without its planned adapters
        self.gone = trio.Event()  # set when the owner task is over: stopped or failed
        self.log_file = launcher.log_file(plan.model)
        self._engine: EngineProcess | None = None
        self._keep_alive: float | None = None
        self._launcher = launcher
        self._settings = settings
        self._load_timeout = scheduler.load_timeout
        self._moved = moved
        self._stop_wanted = trio.Event()
        self._idle = trio.Event()

    @property
    def model(self) -> str:
        return self.plan.model

    @property
    def load_phase(self) -> str:
        """The step that a load has reached; empty in any other state."""
        return self._engine.load_phase if self._engine and self.state is State.STARTING else ""

    @property
    def survives_restart(self) -> bool:
        """Whether it survives a restart of the daemon: it is ready, and no stop was requested."""
        serves = self.state is State.READY and not self._stop_wanted.is_set()
        return serves and self._engine is not None and self._engine.survives_restart

    def stop(self, why: str) -> None:
        """Drain and stop it; a second call has no effect."""
        if not self._stop_wanted.is_set():
            event(log, logging.INFO, "unload", LogEvent.WORKER_UNLOAD, model=self.model, why=why)
            self._stop_wanted.set()

    def note_leases(self, leases: int) -> None:
        """Set the number of leases; draining waits until there is none."""
        if not leases:
            self._idle.set()
        elif self._idle.is_set():  # an event that is not set may have a waiter
            self._idle = trio.Event()

    def record_keep_alive(self, keep_alive: float | None) -> None:
        """Record the keep-alive of the last request that set one."""
        self._keep_alive = keep_alive
        if self._engine:
            self._engine.record_keep_alive(keep_alive)

    async def run(self) -> None:
        """Start the engine, and again after each crash, until it is stopped or has failed."""
        settings = self._settings
        rules = Rules(
            base=settings.backoff_base,
            limit=settings.backoff_limit,
            max_failures=settings.max_failures,
        )
        endings: list[Ending] = []
        try:
            while True:
                endings.append(await self._live())
                self.reason = endings[-1].reason
                if self._shortened():
                    endings.pop()  # the engine named the length it admits: not a failure
                    self._enter(State.BACKOFF)
                    self.restarts += 1
                    continue
                if refuses_parsers(self.reason) and self.plan.has_parsers:
                    self.plan = self.plan.without_parsers()
                    event(
                        log,
                        logging.WARNING,
                        "starting without parsers",
                        LogEvent.WORKER_WITHOUT_PARSERS,
                        model=self.model,
                    )
                elif (
                    self.plan.spec.loras and not endings[-1].requested and not endings[-1].ready_for
                ):
                    # One bad adapter must not make the model unavailable to other requests.
                    self.lora_problem = self.reason
                    self.plan = self.plan.without_loras()
                    endings[-1] = replace(endings[-1], deterministic=False)
                    event(
                        log,
                        logging.WARNING,
                        "starting without adapters",
                        LogEvent.WORKER_WITHOUT_ADAPTERS,
                        model=self.model,
                    )
                match decide_after_ending(endings, rules, jitter=random.uniform(0.5, 1.5)):
                    case StayStopped():
                        return self._enter(State.STOPPED)
                    case GiveUp():
                        return self._enter(State.FAILED)
                    case Retry(delay):
                        self._enter(State.BACKOFF)
                        with trio.move_on_after(delay):
                            await self._stop_wanted.wait()
                if self._stop_wanted.is_set():
                    return self._enter(State.STOPPED)
                self.restarts += 1
        finally:
            self.gone.set()

    def _shortened(self) -> bool:
        """Plan with the shorter context length that the engine named, if it did; only once."""
        admitted = whole_blocks(admitted_length(self.reason))
        if not admitted or not self.plan.may_be_shortened or self._stop_wanted.is_set():
            return False
        event(
            log,
            logging.WARNING,
            "starting with a shorter context",
            LogEvent.WORKER_CONTEXT_SHORTENED,
            model=self.model,
            context_length=admitted,
            planned=self.plan.context_length or self.plan.spec.need.context_length,
        )
        self.plan = self.plan.shortened(admitted)
        return True

    async def _live(self) -> Ending:
        """Run one engine process. When this returns, no process of its group is left."""
        self._enter(State.STARTING)
        ready_at: float | None = None
        try:
            async with self._launcher.live(self.plan) as engine:
                self.pid, self.endpoint, self._engine = engine.pid, engine.endpoint, engine
                outcome = await self._load(engine)
                if outcome is None:
                    ready_at = trio.current_time()
                    self._enter(State.READY)
                    await engine.hand_to_fd_store(
                        self.plan,
                        context_length=self.context_length,
                        keep_alive=self._keep_alive,
                    )
                    outcome = await self._serve(engine)
                if not isinstance(outcome, _StopRequested) or ready_at is None:
                    engine.kill_without_grace()
                self.reason = "" if isinstance(outcome, _StopRequested) else outcome
                self._enter(State.STOPPING)
        except VllamadError as error:
            outcome = error.message
        except Exception as error:
            log.exception(
                "internal error in a worker", extra=named(LogEvent.INTERNAL_ERROR, model=self.model)
            )
            outcome = f"internal error: {error!r}"
        return self._ending(outcome, ready_at)

    async def _load(self, engine: EngineProcess) -> str | _StopRequested | None:
        """Wait until it is ready: None; or return why it is not."""
        with trio.move_on_after(self._load_timeout):
            try:
                return await first_of(
                    partial(self._until_ready, engine),
                    engine.wait_exited,
                    self._until_stop_requested,
                )
            except VllamadError as error:
                return error.message
        return f"not ready after {self._load_timeout:.0f} s"

    async def _serve(self, engine: EngineProcess) -> str | _StopRequested:
        """Serve until it is stopped and has no lease, or until it fails; return why."""
        outcome = await first_of(
            self._until_stop_requested,
            engine.wait_exited,
            engine.wait_unhealthy,
            partial(self._measure, engine),
        )
        if isinstance(outcome, _StopRequested):
            self._enter(State.DRAINING)
            with trio.move_on_after(self._settings.drain_timeout):
                await first_of(self._until_idle, engine.wait_exited)
        return outcome

    async def _until_ready(self, engine: EngineProcess) -> None:
        self.context_length = await engine.wait_ready() or self.context_length

    async def _until_stop_requested(self) -> _StopRequested:
        await self._stop_wanted.wait()
        return _StopRequested()

    async def _until_idle(self) -> None:
        while not self._idle.is_set():
            await self._idle.wait()

    async def _measure(self, engine: EngineProcess) -> str:
        while True:
            self.usage = await engine.usage()
            await trio.sleep(30)

    def _ending(self, outcome: str | _StopRequested, ready_at: float | None) -> Ending:
        if self.state is not State.STOPPING:
            self._enter(State.STOPPING)
        self.pid, self.usage, self._engine = None, ResourceUsage(0), None
        if isinstance(outcome, _StopRequested):
            return Ending(requested=True)
        return Ending(
            requested=False,
            reason=outcome,
            ready_for=trio.current_time() - ready_at if ready_at is not None else 0.0,
            deterministic=ready_at is None and is_deterministic(outcome),
        )

    def _enter(self, state: State) -> None:
        """Change the state; the only place that does. It is logged and reported to the manager."""
        before, self.state = self.state, advance(self.state, state)
        seconds, self.since = trio.current_time() - self.since, trio.current_time()
        bad = bool(self.reason) and state in (State.STOPPING, State.BACKOFF, State.FAILED)
        event(
            log,
            logging.WARNING if bad else logging.INFO,
            _ENTERED[state],
            LogEvent(f"worker.{state}"),
            model=self.model,
            state=state,
            after=f"{seconds:.1f}s {before}",
            worker_pid=self.pid,
            reason=self.reason if bad else None,
            **(self._launcher.explained(self.plan) if state is State.STARTING else {}),
        )
        self._moved(self)
