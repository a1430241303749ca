"""One life of a real engine: its folder, its log, its processes, its probes.

Where the floors meet: a plan is spelled by `engine/command.py`, spawned by `host/process_group.py`
and asked by `engine/probe.py`. When a life's block is left no process and no file of it remains.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from vllamad.config.settings import Settings
from vllamad.core.audio import AudioSupport
from vllamad.core.launch import Plan
from vllamad.engine import probe
from vllamad.engine.command import Workplace, command, environment
from vllamad.errors import HostProblem, LoadFailed
from vllamad.host.cgroup import Cgroup, Cgroups
from vllamad.host.journal import EngineLines, Journal
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.process_endings import Watch, starved
from vllamad.host.process_group import Launch, ProcessGroup, ResourceUsage, adopt, spawn
from vllamad.host.processes import first_exit
from vllamad.host.tasks import first_of
from vllamad.http.engine_client import client_for
from vllamad.supervisor.runtime import EngineRuntimes
from vllamad.supervisor.workers.context_lengths import remembered
from vllamad.supervisor.workers.engine_output import EngineOutput, worker_output
from vllamad.supervisor.workers.handover import AdoptedWorker, Handover, WorkerFacts, WorkerHandover
from vllamad.supervisor.workers.worker_paths import log_file, run_folder, worker_id

log = logging.getLogger(__name__)

_ENGINE_PROCESSES = "VLLM::"  # how vLLM titles its core and workers


class VllmLauncher:
    """Starts engines; the only maker of `Life` outside the tests."""

    def __init__(
        self,
        settings: Settings,
        engines: EngineRuntimes,
        environ: Mapping[str, str],
        journal: Journal | None = None,
        cgroups: Cgroups | None = None,
        keeping: Handover | None = None,
    ) -> None:
        self._settings = settings
        self._keeping = keeping or Handover(None, {})
        self._cgroups = cgroups
        self._engines = engines
        self._environ = environ
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        """Go by other settings from the next start on."""
        self._settings = settings

    def log_file(self, model: str) -> Path:
        return log_file(self._settings.paths.logs, model)

    def explained(self, plan: Plan) -> Mapping[str, object]:
        """How an engine for `plan` will compute and why, for the log."""
        return self._engines.explained(plan)

    @asynccontextmanager
    async def live(self, plan: Plan) -> AsyncGenerator[VllmProcess]:
        """Start an engine for `plan`, or go on with one that a daemon before us has started.

        Leaving the block ends it and waits until it is gone; but one that is kept is let go when
        we are cancelled.
        """
        settings, place = self._settings, self._place(plan.model)
        keeper = self._keeping.keeper(plan.model)
        lines = EngineLines(self._journal, plan.model) if self._journal else None
        group: ProcessGroup | None = None
        try:
            opened = await self._open(plan, place, keeper.survivor)
            mark = keeper.survivor.mark if keeper.survivor else None
            path = self.log_file(plan.model)
            with worker_output(path, settings.logging, lines, mark) as (file, output):
                async with _emptied(opened) as group, trio.open_nursery() as nursery:
                    output.pid = group.pid
                    nursery.start_soon(file.keep_up)
                    with keeper.forgetting():
                        yield VllmProcess(plan, place, group, output, settings, keeper)
                    nursery.cancel_scope.cancel()
                file.catch_up()
        finally:
            if group and group.survives_restart:
                event(
                    log,
                    logging.INFO,
                    "worker handed over",
                    LogEvent.WORKER_HANDED_OVER,
                    model=plan.model,
                    worker_pid=group.pid,
                )
            else:
                keeper.forget()
                shutil.rmtree(place.run, ignore_errors=True)  # vLLM leaves its sockets behind

    def _place(self, model: str) -> Workplace:
        paths = self._settings.paths
        return Workplace(run=run_folder(paths.run, model), cache=paths.cache)

    async def _open(
        self, plan: Plan, place: Workplace, survivor: AdoptedWorker | None
    ) -> AbstractAsyncContextManager[ProcessGroup]:
        settings, own, groups = self._settings, self._settings.worker, self._cgroups
        if survivor:
            return adopt(
                survivor.line,
                groups.find(survivor.name) if groups else None,
                term_timeout=own.stop_timeout,
                kill_timeout=own.kill_timeout,
            )
        engine = await self._engines.engine()
        plan = remembered(
            plan, f"{engine.features.device} {engine.features.version}", settings.paths.cache
        )
        launch = Launch(
            argv=tuple(command(engine, plan, place, settings.engine)),
            env=environment(
                engine,
                plan,
                place,
                settings.engine,
                self._environ,
                load_timeout=settings.scheduler.load_timeout,
            ),
            cwd=place.run,
            log_path=self.log_file(plan.model),
            cgroup=self._cgroup(worker_id(plan.model), plan),
        )
        _make_folder(place, plan)
        return spawn(launch, term_timeout=own.stop_timeout, kill_timeout=own.kill_timeout)

    def _cgroup(self, name: str, plan: Plan) -> Cgroup | None:
        wanted = plan.spec.memory_max or self._settings.worker.memory_max
        if wanted and not (self._cgroups and self._cgroups.memory):
            event(
                log, logging.WARNING, "memory_max is not enforced without cgroups", model=plan.model
            )
        return self._cgroups.make(name, memory_max=wanted) if self._cgroups else None


class VllmProcess:
    """A started engine; see `supervisor.worker.Life`."""

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        group: ProcessGroup,
        output: EngineOutput,
        settings: Settings,
        keeper: WorkerHandover,
    ) -> None:
        self.endpoint = place.endpoint
        self._plan = plan
        self._group = group
        self._output = output
        self._settings = settings.worker
        self._paths = settings.paths
        self._keeper = keeper
        self._held: int | None = None  # bytes, when it was last measured
        self._watch = Watch(group.cgroup.path if group.cgroup else None)

    @property
    def pid(self) -> int:
        return self._group.pid

    @property
    def load_phase(self) -> str:
        return self._output.load_phase

    @property
    def survives_restart(self) -> bool:
        return self._group.survives_restart

    async def wait_ready(self) -> int:
        if self._keeper.survivor:
            return await self._still_there(self._keeper.survivor)
        return await probe.until_ready(
            self.endpoint,
            model=self._plan.model,
            pooling=self._plan.spec.pooling,
            transcribes=self._plan.spec.audio is AudioSupport.TRANSCRIBE_ONLY,
        )

    async def wait_exited(self) -> str:
        reason = await first_of(self._exited, self._past_saving)
        return self._starved() or reason

    async def wait_unhealthy(self) -> str:
        reason = await first_of(self._core_died, self._unresponsive, self._stuck)
        return self._starved() or reason

    async def usage(self) -> ResourceUsage:
        usage = await trio.to_thread.run_sync(self._group.usage)
        self._held = max(usage.memory, self._held or 0)
        return usage

    def kill_without_grace(self) -> None:
        self._group.kill_now = True

    async def hand_to_fd_store(
        self, plan: Plan, *, context_length: int, keep_alive: float | None
    ) -> None:
        if file := self._output.file:
            facts = WorkerFacts(
                plan=plan,
                leader=self.pid,
                context_length=context_length,
                log_began=file.mark.began,
                run=str(self.endpoint.parent),
                log_file=str(file.path),
            )
            await self._keeper.keep(self._group, file, facts, keep_alive)

    def record_keep_alive(self, keep_alive: float | None) -> None:
        self._keeper.record_keep_alive(keep_alive)

    async def _still_there(self, survivor: AdoptedWorker) -> int:
        settings = self._settings
        async with client_for(str(self.endpoint)) as client:
            for _ in range(settings.probe_misses):
                if await probe.alive(client, limit=settings.probe_timeout):
                    return survivor.facts.context_length
        raise LoadFailed(f"no answer to {settings.probe_misses} health probes after our restart")

    def _starved(self) -> str:
        group = self._group.cgroup
        if group is None or not group.out_of_memory():
            return ""
        return starved(group.memory_peak(), group.memory_max)

    async def _exited(self) -> str:
        """A leader that ends in order may do so because a process below it was killed."""
        code, memory = await self._group.ended()
        killed = code if code < 0 else -self._output.child_signal()
        if killed:
            memory = max(memory or 0, self._held or 0) or None
            return self._watch.told(killed, self._output.reason(), memory=memory)
        return self._output.reason() or f"the engine ended by itself: exit status {code}"

    async def _past_saving(self) -> str:
        """A start that fails late can leave everything alive and deaf to TERM."""
        await self._output.fatal.wait()
        return self._output.reason() or "the engine says that it failed to start"

    async def _core_died(self) -> str:
        """Streams of vLLM stay silent for seconds after its core is gone: watch the core itself."""
        cores = {
            pid: comm for pid, comm in self._group.members() if comm.startswith(_ENGINE_PROCESSES)
        }
        if not cores:
            await trio.sleep_forever()
        pid, code = await first_exit(cores)
        died = cores[pid].removeprefix(_ENGINE_PROCESSES)
        # The kernel keeps 15 characters of a name.
        what = "the engine core" if died.startswith("EngineCor") else f"the engine's {died}"
        reason = self._output.reason()
        killed = -self._output.child_signal() if code is None else min(code, 0)
        if killed:
            reason = self._watch.told(killed, reason, memory=self._held)
        return f"{what} died: {reason}" if reason else f"{what} died"

    async def _unresponsive(self) -> str:
        settings = self._settings
        misses = 0
        async with client_for(str(self.endpoint)) as client:
            while misses < settings.probe_misses:
                await trio.sleep(settings.probe_interval)
                well = await probe.alive(client, limit=settings.probe_timeout)
                misses = 0 if well else misses + 1
        return f"no answer to {misses} health probes"

    async def _stuck(self) -> str:
        """Health only knows that the core lives; a core that hangs makes no tokens."""
        limit = self._settings.stuck_timeout
        moved_at, before = trio.current_time(), None
        async with client_for(str(self.endpoint)) as client:
            while trio.current_time() - moved_at < limit:
                await trio.sleep(limit / 4)
                now = await probe.progress(client, limit=self._settings.probe_timeout)
                if now is None or not now.running or now != before:
                    moved_at, before = trio.current_time(), now
        return f"no token for {limit:g} s while requests run"


def _make_folder(place: Workplace, plan: Plan) -> None:
    """The worker's private folder, 0700. Raises HostProblem."""
    shutil.rmtree(place.run, ignore_errors=True)
    try:
        for folder in (place.run, place.run / "tmp", place.run / "rpc", place.cache / "vllm"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if plan.spec.template:
            place.template.write_text(plan.spec.template)
    except OSError as error:
        raise HostProblem(f"cannot make {error.filename}: {error.strerror}") from error


@asynccontextmanager
async def _emptied(
    opened: AbstractAsyncContextManager[ProcessGroup],
) -> AsyncGenerator[ProcessGroup]:
    """What will not die is waited for: its memory is not free before it is gone."""
    group: ProcessGroup | None = None
    try:
        async with opened as group:
            yield group
    except HostProblem as problem:
        if group is None:
            raise
        event(
            log, logging.ERROR, "cannot end all processes", error=problem.message, hint=problem.hint
        )
        await group.gone()
        raise
