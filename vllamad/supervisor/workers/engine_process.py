"""Runs one vLLM process: its folder, its log, its process group, its probes.

`engine/command.py` turns a plan into a command, `host/processes/process_group.py` starts it and
`engine/probe.py` checks it. When the block is left, no process and no file of it remains.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from vllamad.config.settings import Settings
from vllamad.core.audio_support import AudioSupport
from vllamad.core.launch import Plan
from vllamad.engine import probe
from vllamad.engine.command import Workplace, command, environment
from vllamad.errors import HostProblem, LoadFailed
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.cgroup import Cgroup, Cgroups
from vllamad.host.processes.process_endings import Watch, starved
from vllamad.host.processes.process_group import Launch, ProcessGroup, ResourceUsage, adopt, spawn
from vllamad.host.processes.process_tree import first_exit
from vllamad.host.systemd.journal import EngineLines, Journal
from vllamad.host.tasks import first_of
from vllamad.http.engine_client import client_for
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.workers.context_lengths import remembered
from vllamad.supervisor.workers.engine_output import EngineOutput, worker_output
from vllamad.supervisor.workers.handover import AdoptedWorker, Handover, WorkerFacts, WorkerHandover
from vllamad.supervisor.workers.worker_paths import log_file, run_folder, worker_id

log = logging.getLogger(__name__)

_ENGINE_PROCESSES = "VLLM::"  # how vLLM titles its core and workers


class VllmLauncher:
    """Starts vLLM processes."""

    def __init__(
        self,
        settings: Settings,
        engines: EngineRuntimes,
        environ: Mapping[str, str],
        journal: Journal | None = None,
        cgroups: Cgroups | None = None,
        handovers: Handover | None = None,
    ) -> None:
        self._settings = settings
        self._handovers = handovers or Handover(None, {})
        self._cgroups = cgroups
        self._engines = engines
        self._environ = environ
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        """Use other settings from the next start on."""
        self._settings = settings

    def log_file(self, model: str) -> Path:
        return log_file(self._settings.paths.logs, model)

    def explained(self, plan: Plan) -> Mapping[str, object]:
        """How an engine for `plan` will compute and why, for the log."""
        return self._engines.explained(plan)

    @asynccontextmanager
    async def live(self, plan: Plan) -> AsyncGenerator[VllmProcess]:
        """Start an engine for `plan`, or adopt the one that a previous daemon has started.

        Leaving the block ends it and waits until it is gone. One that survives a restart is
        released instead, if the block is left by the daemon's cancellation.
        """
        settings, place = self._settings, self._place(plan.model)
        handover = self._handovers.of(plan.model)
        lines = EngineLines(self._journal, plan.model) if self._journal else None
        group: ProcessGroup | None = None
        try:
            opened = await self._open(plan, place, handover.survivor)
            mark = handover.survivor.log_position if handover.survivor else None
            path = self.log_file(plan.model)
            with worker_output(path, settings.logging, lines, mark) as (file, output):
                async with _emptied(opened) as group, trio.open_nursery() as nursery:
                    output.pid = group.pid
                    nursery.start_soon(file.follow)
                    with handover.forgotten_at_end():
                        yield VllmProcess(plan, place, group, output, settings, handover)
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
                handover.forget()
                shutil.rmtree(place.run, ignore_errors=True)  # vLLM does not remove its sockets

    def _place(self, model: str) -> Workplace:
        paths = self._settings.paths
        return Workplace(run=run_folder(paths.run, model), cache=paths.cache)

    async def _open(
        self, plan: Plan, place: Workplace, survivor: AdoptedWorker | None
    ) -> AbstractAsyncContextManager[ProcessGroup]:
        settings, limits, groups = self._settings, self._settings.worker, self._cgroups
        if survivor:
            return adopt(
                survivor.link,
                groups.find(survivor.name) if groups else None,
                term_timeout=limits.stop_timeout,
                kill_timeout=limits.kill_timeout,
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
        return spawn(launch, term_timeout=limits.stop_timeout, kill_timeout=limits.kill_timeout)

    def _cgroup(self, name: str, plan: Plan) -> Cgroup | None:
        limit = plan.spec.memory_max or self._settings.worker.memory_max
        if limit and not (self._cgroups and self._cgroups.memory):
            event(
                log, logging.WARNING, "memory_max is not enforced without cgroups", model=plan.model
            )
        return self._cgroups.make(name, memory_max=limit) if self._cgroups else None


class VllmProcess:
    """A started vLLM process; see the protocol `EngineProcess`."""

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        group: ProcessGroup,
        output: EngineOutput,
        settings: Settings,
        handover: WorkerHandover,
    ) -> None:
        self.endpoint = place.endpoint
        self._plan = plan
        self._group = group
        self._output = output
        self._settings = settings.worker
        self._paths = settings.paths
        self._handover = handover
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
        if self._handover.survivor:
            return await self._confirm_adopted(self._handover.survivor)
        return await probe.until_ready(
            self.endpoint,
            model=self._plan.model,
            pooling=self._plan.spec.pooling,
            transcribes=self._plan.spec.audio is AudioSupport.TRANSCRIBE_ONLY,
        )

    async def wait_exited(self) -> str:
        reason = await first_of(self._exited, self._start_failed)
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
            await self._handover.store(self._group, file, facts, keep_alive)

    def record_keep_alive(self, keep_alive: float | None) -> None:
        self._handover.record_keep_alive(keep_alive)

    async def _confirm_adopted(self, survivor: AdoptedWorker) -> int:
        settings = self._settings
        async with client_for(str(self.endpoint)) as client:
            for _ in range(settings.probe_misses):
                if await probe.alive(client, limit=settings.probe_timeout):
                    return survivor.facts.context_length
        raise LoadFailed(
            f"no answer to {settings.probe_misses} health probes after the restart of vllamad"
        )

    def _starved(self) -> str:
        group = self._group.cgroup
        if group is None or not group.out_of_memory():
            return ""
        return starved(group.memory_peak(), group.memory_max)

    async def _exited(self) -> str:
        """The leader may exit in order because one of its child processes was killed."""
        code, memory = await self._group.wait_ended()
        killed = code if code < 0 else -self._output.child_signal()
        if killed:
            memory = max(memory or 0, self._held or 0) or None
            return self._watch.describe(killed, self._output.reason(), memory=memory)
        return self._output.reason() or f"the engine ended by itself: exit status {code}"

    async def _start_failed(self) -> str:
        """A start that fails late can leave all processes alive, and they ignore SIGTERM."""
        await self._output.fatal.wait()
        return self._output.reason() or "the engine reported that it failed to start"

    async def _core_died(self) -> str:
        """Watch the core itself: vLLM's streams stay silent for seconds after it has died."""
        cores = {
            pid: comm for pid, comm in self._group.members() if comm.startswith(_ENGINE_PROCESSES)
        }
        if not cores:
            await trio.sleep_forever()
        pid, code = await first_exit(cores)
        died = cores[pid].removeprefix(_ENGINE_PROCESSES)
        # The kernel keeps 15 characters of a name.
        process = "the engine core" if died.startswith("EngineCor") else f"the engine's {died}"
        reason = self._output.reason()
        killed = -self._output.child_signal() if code is None else min(code, 0)
        if killed:
            reason = self._watch.describe(killed, reason, memory=self._held)
        return f"{process} died: {reason}" if reason else f"{process} died"

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
        """/health reports only that the core lives; a core that hangs makes no tokens."""
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
    """Wait for processes that survive SIGKILL: their memory is not free before they are gone."""
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
