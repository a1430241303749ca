"""One worker's life, told once, top to bottom.

`Worker.run` is the owner task: nothing else changes a worker's state. It knows nothing of other
workers or of who waits; it says where it is, and the fleet decides what that means.
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
from vllamad.host.process_group import ResourceUsage
from vllamad.host.tasks import first_of

log = logging.getLogger(__name__)

_ENTERED = {state: f"worker {state}" for state in State}  # the message for each state


class EngineProcess(Protocol):
    """One started engine: what a worker asks of it while it lives."""

    endpoint: Path

    @property
    def pid(self) -> int: ...

    @property
    def load_phase(self) -> str:
        """How far its load has come, in words."""
        ...

    async def wait_exited(self) -> str:
        """Wait until it has died or is past saving; the reason in one line."""
        ...

    async def wait_ready(self) -> int:
        """Wait until it has made a token; the context length it settled on."""
        ...

    async def wait_unhealthy(self) -> str:
        """Wait until it is dead, deaf or stuck though nobody asked; the reason in one line."""
        ...

    async def usage(self) -> ResourceUsage:
        """Main memory and processor time of its processes."""
        ...

    def kill_without_grace(self) -> None:
        """End it without asking: it is dead already, or cannot hear."""
        ...

    @property
    def survives_restart(self) -> bool:
        """Whether it lives on when its block is left because we are cancelled."""
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
        """How an engine for `plan` will compute and why, for the log."""
        ...

    def live(self, plan: Plan) -> AbstractAsyncContextManager[EngineProcess]:
        """Start an engine; leaving the block ends it, and returns when its group is empty."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """It was asked to stop."""


class Worker:
    """One supervised vLLM process group and its owner task."""

    def __init__(
        self,
        plan: Plan,
        lives: EngineLauncher,
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
        self.lora_problem = ""  # why it does without the adapters it was planned with
        self.gone = trio.Event()  # set when the owner task is over: stopped or failed
        self.log_file = lives.log_file(plan.model)
        self._life: EngineProcess | None = None
        self._keep_alive: float | None = None
        self._lives = lives
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
        """What a load is busy with; empty in any other state."""
        return self._life.load_phase if self._life and self.state is State.STARTING else ""

    @property
    def survives_restart(self) -> bool:
        """Whether it outlives us: it serves, and nobody wants it to stop."""
        serves = self.state is State.READY and not self._stop_wanted.is_set()
        return serves and self._life is not None and self._life.survives_restart

    def stop(self, why: str) -> None:
        """Ask it to drain and stop; asking twice is asking once."""
        if not self._stop_wanted.is_set():
            event(log, logging.INFO, "unload", LogEvent.WORKER_UNLOAD, model=self.model, why=why)
            self._stop_wanted.set()

    def note_leases(self, leases: int) -> None:
        """How many use it now: what draining waits for."""
        if not leases:
            self._idle.set()
        elif self._idle.is_set():  # else somebody may be waiting for this one
            self._idle = trio.Event()

    def record_keep_alive(self, keep_alive: float | None) -> None:
        """Record the keep-alive of the last request that set one."""
        self._keep_alive = keep_alive
        if self._life:
            self._life.record_keep_alive(keep_alive)

    async def run(self) -> None:
        """Live, and live again after a crash, until asked to stop or past hope."""
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
                    endings.pop()  # the engine said what to do: that is no failure
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
                    # One bad adapter must not take their model from everybody else.
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
        """Has the engine named a shorter context than it was given? Then it is the plan's, once."""
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
        """One life. When this returns, no process of its group is left."""
        self._enter(State.STARTING)
        ready_at: float | None = None
        try:
            async with self._lives.live(self.plan) as life:
                self.pid, self.endpoint, self._life = life.pid, life.endpoint, life
                outcome = await self._load(life)
                if outcome is None:
                    ready_at = trio.current_time()
                    self._enter(State.READY)
                    await life.hand_to_fd_store(
                        self.plan,
                        context_length=self.context_length,
                        keep_alive=self._keep_alive,
                    )
                    outcome = await self._serve(life)
                if not isinstance(outcome, _Asked) or ready_at is None:
                    life.kill_without_grace()
                self.reason = "" if isinstance(outcome, _Asked) else outcome
                self._enter(State.STOPPING)
        except VllamadError as error:
            outcome = error.message
        except Exception as error:
            log.exception(
                "internal error in a worker", extra=named(LogEvent.INTERNAL_ERROR, model=self.model)
            )
            outcome = f"internal error: {error!r}"
        return self._ending(outcome, ready_at)

    async def _load(self, life: EngineProcess) -> str | _Asked | None:
        """None when it is ready; otherwise why it will not be."""
        with trio.move_on_after(self._load_timeout):
            try:
                return await first_of(
                    partial(self._until_ready, life), life.wait_exited, self._until_asked
                )
            except VllamadError as error:
                return error.message
        return f"not ready after {self._load_timeout:.0f} s"

    async def _serve(self, life: EngineProcess) -> str | _Asked:
        """Until it is asked to stop and nobody uses it any more, or until it fails."""
        outcome = await first_of(
            self._until_asked, life.wait_exited, life.wait_unhealthy, partial(self._measure, life)
        )
        if isinstance(outcome, _Asked):
            self._enter(State.DRAINING)
            with trio.move_on_after(self._settings.drain_timeout):
                await first_of(self._until_idle, life.wait_exited)
        return outcome

    async def _until_ready(self, life: EngineProcess) -> None:
        self.context_length = await life.wait_ready() or self.context_length

    async def _until_asked(self) -> _Asked:
        await self._stop_wanted.wait()
        return _Asked()

    async def _until_idle(self) -> None:
        while not self._idle.is_set():
            await self._idle.wait()

    async def _measure(self, life: EngineProcess) -> str:
        while True:
            self.usage = await life.usage()
            await trio.sleep(30)

    def _ending(self, outcome: str | _Asked, ready_at: float | None) -> Ending:
        if self.state is not State.STOPPING:
            self._enter(State.STOPPING)
        self.pid, self.usage, self._life = None, ResourceUsage(0), None
        if isinstance(outcome, _Asked):
            return Ending(requested=True)
        return Ending(
            requested=False,
            reason=outcome,
            ready_for=trio.current_time() - ready_at if ready_at is not None else 0.0,
            deterministic=ready_at is None and is_deterministic(outcome),
        )

    def _enter(self, state: State) -> None:
        """The only place a state changes; it is logged here and told to the fleet."""
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
            **(self._lives.explained(self.plan) if state is State.STARTING else {}),
        )
        self._moved(self)
