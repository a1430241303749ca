"""One life of a real engine: its folder, its log, its processes, its probes.

Where the floors meet: a plan is spelled by `engine/command.py`, spawned by `host/process_group.py`
and asked by `engine/probe.py`. When a life's block is left no process and no file of it remains.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path

import trio

from vllamad.config.settings import Settings, WorkerSettings
from vllamad.core.launch import Plan
from vllamad.engine import probe
from vllamad.engine.command import Workplace, command, environment
from vllamad.engine.reasons import is_fatal_start_line, last_meaningful_line, progress
from vllamad.errors import HostProblem
from vllamad.host import devices
from vllamad.host.cgroup import Cgroup, Cgroups
from vllamad.host.http_client import client_for
from vllamad.host.journal import EngineLines, Journal
from vllamad.host.log import escape, event
from vllamad.host.log_files import WorkerLog, worker_log
from vllamad.host.process_group import Launch, ProcessGroup, Usage, first_exit, spawn
from vllamad.host.tasks import first_of
from vllamad.supervisor.engines import Engines

log = logging.getLogger(__name__)

_ENGINE_PROCESSES = "VLLM::"  # how vLLM titles its core and workers


def log_file(folder: Path, model: str) -> Path:
    """Where the output of the workers of `model` goes; neither sign occurs in a model's name."""
    return folder / (model.replace("/", "+").replace(":", "@") + ".log")


class EngineLives:
    """Starts engines; the only maker of `Life` outside the tests."""

    def __init__(
        self,
        settings: Settings,
        engines: Engines,
        environ: Mapping[str, str],
        journal: Journal | None = None,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._settings = settings
        self._cgroups = cgroups
        self._engines = engines
        self._environ = environ
        self._journal = journal

    def log_file(self, model: str) -> Path:
        return log_file(self._settings.paths.logs, model)

    @asynccontextmanager
    async def live(self, plan: Plan) -> AsyncGenerator[EngineLife]:
        """Start an engine for `plan`; leaving the block ends it and waits until it is gone."""
        settings = self._settings
        engine = await self._engines.engine()
        name = sha256(plan.model.encode()).hexdigest()[:12]
        place = Workplace(
            run=settings.paths.run / "w" / name,
            cache=settings.paths.cache,
            cores=devices.cores(),
        )
        launch = Launch(
            argv=tuple(command(engine, plan, place, settings.engine)),
            env=environment(engine, plan, place, settings.engine, self._environ),
            cwd=place.run,
            log_path=self.log_file(plan.model),
            cgroup=self._cgroup(name, plan),
        )
        own = settings.worker
        lines = EngineLines(self._journal, plan.model) if self._journal else None
        with _folder(place, plan), _log(launch.log_path, settings, lines) as (file, output):
            async with _emptied(launch, own) as group, trio.open_nursery() as nursery:
                output.pid = group.pid
                nursery.start_soon(file.keep_up)
                yield EngineLife(plan, place.endpoint, group, output, own)
                nursery.cancel_scope.cancel()
            file.catch_up()

    def _cgroup(self, name: str, plan: Plan) -> Cgroup | None:
        wanted = plan.spec.memory_max or self._settings.worker.memory_max
        if wanted and not (self._cgroups and self._cgroups.memory):
            event(log, logging.WARNING, "memory_max is not enforced", model=plan.model)
        return self._cgroups.make(name, memory_max=wanted) if self._cgroups else None


class EngineLife:
    """A started engine; see `supervisor.worker.Life`."""

    def __init__(
        self,
        plan: Plan,
        endpoint: Path,
        group: ProcessGroup,
        output: _Output,
        settings: WorkerSettings,
    ) -> None:
        self.endpoint = endpoint
        self._plan = plan
        self._group = group
        self._output = output
        self._settings = settings

    @property
    def pid(self) -> int:
        return self._group.pid

    @property
    def doing(self) -> str:
        return self._output.doing

    async def ready(self) -> int:
        return await probe.until_ready(
            self.endpoint,
            model=self._plan.model,
            pooling=self._plan.spec.pooling,
            transcribes=self._plan.spec.hearing == "only",
        )

    async def ended(self) -> str:
        reason = await first_of(self._exited, self._past_saving)
        return self._starved() or reason

    async def failing(self) -> str:
        reason = await first_of(self._core_died, self._deaf, self._stuck)
        return self._starved() or reason

    async def usage(self) -> Usage:
        return await trio.to_thread.run_sync(self._group.usage)

    def hurry(self) -> None:
        self._group.kill_now = True

    def _starved(self) -> str:
        return self._group.cgroup.out_of_memory() if self._group.cgroup else ""

    async def _exited(self) -> str:
        code = await self._group.exited()
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return self._output.reason() or f"the engine ended by itself: {how}"

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
        died = cores[await first_exit(cores)].removeprefix(_ENGINE_PROCESSES)
        # The kernel keeps 15 characters of a name.
        what = "the engine core" if died.startswith("EngineCor") else f"the engine's {died}"
        reason = self._output.reason()
        return f"{what} died: {reason}" if reason else f"{what} died"

    async def _deaf(self) -> str:
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


class _Output:
    """What the lines of one life mean."""

    def __init__(self, journal: EngineLines | None) -> None:
        self.fatal = trio.Event()
        self.doing = "starting"
        self.file: WorkerLog | None = None
        self.pid = 0
        self._journal = journal

    def on_line(self, line: str) -> None:
        if self._journal:
            self._journal.send(escape(line), self.pid)
        self.doing = progress(line) or self.doing
        if is_fatal_start_line(line):
            self.fatal.set()

    def reason(self) -> str:
        """The last meaningful line so far; empty if there is none."""
        if self.file is None:
            return ""
        self.file.catch_up()
        return last_meaningful_line(self.file.tail())


@contextmanager
def _log(
    path: Path, settings: Settings, journal: EngineLines | None
) -> Generator[tuple[WorkerLog, _Output]]:
    output = _Output(journal)
    own = settings.logging
    with worker_log(path, max_bytes=own.max_bytes, keep=own.keep, on_line=output.on_line) as file:
        output.file = file
        yield file, output


@contextmanager
def _folder(place: Workplace, plan: Plan) -> Generator[None]:
    """The worker's private folder, 0700, gone afterwards: vLLM leaves its sockets behind."""
    shutil.rmtree(place.run, ignore_errors=True)
    try:
        for folder in (place.run, place.run / "tmp", place.run / "rpc", place.cache / "vllm"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if plan.spec.template:
            place.template.write_text(plan.spec.template)
    except OSError as error:
        raise HostProblem(f"cannot make {error.filename}: {error.strerror}") from error
    try:
        yield
    finally:
        shutil.rmtree(place.run, ignore_errors=True)


@asynccontextmanager
async def _emptied(launch: Launch, settings: WorkerSettings) -> AsyncGenerator[ProcessGroup]:
    """`spawn`; but what will not die is waited for: its memory is not free before it is gone."""
    group: ProcessGroup | None = None
    try:
        async with spawn(
            launch, term_timeout=settings.stop_timeout, kill_timeout=settings.kill_timeout
        ) as group:
            yield group
    except HostProblem as problem:
        if group is None:
            raise
        event(log, logging.ERROR, problem.message, hint=problem.hint)
        await group.gone()
        raise
