"""Engines that live on a clock alone, their launcher, and a worker manager over both."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import trio

from vllamad.config.settings import SchedulerSettings, WorkerSettings
from vllamad.core.launch import Plan, Spec
from vllamad.core.memory import GIB, Machine, Need
from vllamad.core.scheduler import Limits, Scheduler
from vllamad.errors import HostProblem
from vllamad.host.processes.process_group import ResourceUsage
from vllamad.supervisor.workers.manager import WorkerManager
from vllamad.supervisor.workers.worker import Worker


@dataclass
class FakeProcess:
    """An engine that gets ready after `load` seconds and dies or fails when told."""

    load: float = 5.0
    dies_after: float = inf
    fails_after: float = inf
    why: str = "boom"
    pid: int = 4711
    endpoint: Path = Path("/run/w/1/s")
    hurried: bool = False
    can_survive: bool = False
    survives_restart: bool = False
    keep_alive: float | None = None
    load_phase: str = "loading weights"

    async def wait_ready(self) -> int:
        await trio.sleep(self.load)
        return 4096

    async def wait_exited(self) -> str:
        await trio.sleep(self.dies_after)
        return self.why

    async def wait_unhealthy(self) -> str:
        await trio.sleep(self.fails_after)
        return self.why

    async def usage(self) -> ResourceUsage:
        return ResourceUsage(123)

    def kill_without_grace(self) -> None:
        self.hurried = True

    async def hand_to_fd_store(
        self, plan: Plan, *, context_length: int, keep_alive: float | None
    ) -> None:
        self.survives_restart = self.can_survive

    def record_keep_alive(self, keep_alive: float | None) -> None:
        self.keep_alive = keep_alive


@dataclass
class FakeLauncher:
    """Launches the processes of `story` in turn, then the last one for each further start."""

    story: list[FakeProcess] = field(default_factory=lambda: [FakeProcess()])
    takes_to_die: float = 0.0
    alive: int = 0
    born: list[FakeProcess] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    refuses: str = ""

    def log_file(self, model: str) -> Path:
        return Path("/logs") / model

    def explained(self, plan: Plan) -> dict[str, object]:
        return {"dtype": "float32", "dtype_why": f"of {plan.model}"}

    @asynccontextmanager
    async def live(self, plan: Plan) -> AsyncGenerator[FakeProcess]:
        if self.refuses:
            raise HostProblem(self.refuses)
        life = self.story.pop(0) if len(self.story) > 1 else self.story[0]
        self.born.append(life)
        self.plans.append(plan)
        self.alive += 1
        try:
            yield life
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.takes_to_die)
            self.alive -= 1


def spec_named(model: str) -> Spec:
    need = Need(weights=GIB, context_length=2048)
    return Spec(model=model, folder=model, need=need)


@asynccontextmanager
async def managed_workers(lives: FakeLauncher, **changes: float) -> AsyncGenerator[WorkerManager]:
    """A running worker manager; closed on leaving."""
    limits = Limits(
        keep_alive=changes.get("keep_alive", 300),
        max_loaded=int(changes.get("max_loaded", 0)),
        max_queue=int(changes.get("max_queue", 10)),
        max_running=100,
        queue_timeout=300,
        failed_cooldown=600,
    )
    settings = WorkerSettings(max_failures=int(changes.get("max_failures", 1)))
    fleet = WorkerManager(
        Scheduler(limits, Machine(host=100 * GIB)),
        lambda plan, moved: Worker(plan, lives, settings, SchedulerSettings(), moved),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        yield fleet
        await fleet.close()
        nursery.cancel_scope.cancel()
