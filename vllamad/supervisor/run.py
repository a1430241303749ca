"""The whole control plane as one page of nested nurseries.

Leaving inner to outer is the shutdown order: gateways finish their streams, workers are drained and
stopped, then the sockets close.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from vllamad.config.listen_address import unguarded
from vllamad.config.settings import Settings
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.launch import Plan
from vllamad.core.scheduler import Scheduler
from vllamad.errors import ConfigError, HostProblem
from vllamad.host import gpu_detection
from vllamad.host.cgroup import Cgroups, claim
from vllamad.host.control_socket import bind_control
from vllamad.host.journal import open_journal
from vllamad.host.listeners import address_of, all_loopback, bind_http, given
from vllamad.host.log import event, is_journal
from vllamad.host.log_events import LogEvent
from vllamad.host.shim import become_subreaper
from vllamad.host.systemd import PRIVATE_VARIABLES, Notifier, watchdog_interval
from vllamad.host.systemd_job import pending_job
from vllamad.http.control_server import serve_http
from vllamad.models.installed import InstalledModels
from vllamad.models.store import derived, upload_blobs
from vllamad.protocol.gateway_setup import encode, for_gateway
from vllamad.supervisor.control import Control, Daemon
from vllamad.supervisor.gateways import GatewayLaunch, Gateways
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.models.model_changes import ModelChanges
from vllamad.supervisor.reload import Parts, Reloader, apply, limits_of, preload
from vllamad.supervisor.runtime import EngineRuntimes
from vllamad.supervisor.signals import SignalRequests, listen_for_signals
from vllamad.supervisor.status_text import ask_for_time, serving, stopping, tell
from vllamad.supervisor.watchdog import beat, guarded, until_serving
from vllamad.supervisor.workers.engine_process import VllmLauncher
from vllamad.supervisor.workers.handover import Handover, look_for_survivors
from vllamad.supervisor.workers.lease_server import LeaseServer, listen
from vllamad.supervisor.workers.manager import WorkerManager
from vllamad.supervisor.workers.worker import Worker

log = logging.getLogger(__name__)

# mallopt(3): without it glibc learns from the first large body to keep the next ones' memory.
_LARGE_BODIES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}

Inherited = Mapping[str, Sequence[socket.socket]]


async def run(
    settings: Settings,
    inherited: Inherited,
    environ: Mapping[str, str],
    read: Callable[[], Settings],
) -> None:
    """Be the supervisor until SIGTERM or SIGINT. Raises HostProblem if it cannot begin.

    `read` reads the settings anew, for a reload.
    """
    become_subreaper()
    notify = Notifier(environ)
    notify.status("starting")
    reloader = Reloader(notify, read)
    async with listen_for_signals(notify, reloader.request, terminal=os.isatty(0)) as asked:
        await supervise(settings, inherited, environ, notify, reloader, asked)
    event(log, logging.INFO, "stopped", LogEvent.DAEMON_STOPPED)


async def supervise(
    settings: Settings,
    inherited: Inherited,
    environ: Mapping[str, str],
    notify: Notifier,
    reloader: Reloader,
    asked: SignalRequests,
) -> None:
    """From the first look at the machine to the end of the last worker."""
    for remark in settings.remarks:
        level = logging.DEBUG if remark.expected else logging.INFO
        event(
            log,
            level,
            "setting has no effect",
            LogEvent.CONFIG_IGNORED,
            setting=remark.name,
            why=remark.why,
        )
    keeping = await look_for_survivors(settings, environ)
    cgroups = claim_cgroups(settings)
    engines = EngineRuntimes(
        settings, partial(gpu_detection.look, environ.get("CUDA_VISIBLE_DEVICES"))
    )
    await engines.look()
    lives = make_lives(settings, engines, environ, cgroups, keeping)
    fleet = make_fleet(settings, engines, lives)
    installed_models = InstalledModels(
        settings.paths.models, settings.models, engine=engines.features, caches=settings.caches
    )
    library = Library(settings, installed_models, engines, fleet.measured, environ)
    with sockets(settings, inherited) as (control_socket, http):
        # Only now: while another vllamad lives, what is in these folders is not left behind.
        kept = {one.name for one in keeping.survivors.values()}
        prepare_folders(settings, kept)
        warn_of_noexec([settings.paths.cache])
        if cgroups and (found := await cgroups.sweep(kept, limit=settings.worker.kill_timeout)):
            event(
                log,
                logging.WARNING,
                "ended leftover worker processes",
                LogEvent.LEFTOVERS_ENDED,
                workers=len(found),
            )
        await trio.to_thread.run_sync(sweep, settings.paths.models)

        def launch(settings: Settings) -> GatewayLaunch:
            refuse_unguarded(settings, http)
            return gateway_launch(settings, http, environ, engines.features)

        gateways = Gateways(launch(settings), settings.server.gateways)
        daemon = Daemon(
            settings=settings,
            listen=[address_of(sock) for sock in http],
            reload=reloader.request,
            fleet=fleet,
            library=library,
            orders=ModelChanges(settings.paths.models, installed_models, library, fleet),
            started=time.time(),
            now=time.time,
            pid=os.getpid(),
            uid=os.geteuid(),
            gateways=lambda: len(gateways.pids),
            runtime=engines.info,
            waiting_for=lambda: engines.waiting_for,
        )

        def doing() -> str:
            if asked.stop.is_set():
                return stopping(fleet.workers(), trio.current_time() - asked.stop_since)
            missing, problem = engines.waiting_for, reloader.problem
            return serving(fleet.workers(), waiting_for=missing, problem=problem)

        broker = LeaseServer(fleet, library.spec)
        async with control_plane(fleet, broker, daemon, control_socket, keeping, notify) as up:
            up.start_soon(tell, notify, doing)
            async with trio.open_nursery() as data_plane:
                data_plane.start_soon(gateways.run)
                async with trio.open_nursery() as meanwhile:  # until we are asked to stop
                    parts = Parts(
                        daemon=daemon, fleet=fleet, library=library, engines=engines, lives=lives,
                        gateways=gateways, launch=launch, background=meanwhile,
                    )  # fmt: skip

                    async def serve() -> None:
                        asked.prepared()
                        await until_serving(http[0], settings.paths.control)
                        notify.ready()
                        event(
                            log,
                            logging.INFO,
                            "ready",
                            LogEvent.DAEMON_READY,
                            listen=", ".join(daemon.listen),
                        )
                        up.start_soon(heartbeat, notify, environ, daemon)
                        meanwhile.start_soon(preload, fleet, library, settings.scheduler.preload)
                        await reloader.run(lambda: daemon.settings, partial(apply, parts))

                    meanwhile.start_soon(serve)
                    await asked.stop.wait()
                    meanwhile.cancel_scope.cancel()
                up.start_soon(ask_for_time, notify, stop_limit(daemon.settings))
                fleet.drain()
                close_own(http, inherited)
                gateways.stop()
            # Only when the last answer is over: until then, who is answered may ask once more.
            await fleet.close(keep=keeping.store is not None and await pending_job() != "stop")


@asynccontextmanager
async def control_plane(
    fleet: WorkerManager,
    broker: LeaseServer,
    daemon: Daemon,
    control: socket.socket,
    keeping: Handover,
    notify: Notifier,
) -> AsyncGenerator[trio.Nursery]:
    """Fleet, broker and control socket, from here to the end of the block."""
    paths = daemon.settings.paths
    broker_listener = listen(paths.broker)
    control_listener = trio.SocketListener(trio.socket.from_stdlib_socket(control))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(guarded, notify, fleet.run)
            for survivor in [*keeping.survivors.values()]:
                fleet.adopt(survivor.facts.plan, survivor.keep_alive)
            await nursery.start(daemon.library.pulls.run)
            nursery.start_soon(trio.serve_listeners, broker.attend, [broker_listener])
            nursery.start_soon(serve_http, control_listener, Control(daemon).handle)
            yield nursery
            nursery.cancel_scope.cancel()
    finally:
        paths.broker.unlink(missing_ok=True)


def claim_cgroups(settings: Settings) -> Cgroups | None:
    """What was delegated to us; None, and why, where nothing was."""
    try:
        return claim(keeping=settings.worker.keep_workers)
    except HostProblem as problem:
        event(
            log,
            logging.INFO,
            "workers run without cgroups",
            LogEvent.CGROUPS_UNAVAILABLE,
            why=problem.message,
        )
        return None


def make_lives(
    settings: Settings,
    engines: EngineRuntimes,
    environ: Mapping[str, str],
    cgroups: Cgroups | None,
    keeping: Handover,
) -> VllmLauncher:
    """Where workers come from."""
    journal = open_journal() if is_journal(environ) else None
    return VllmLauncher(settings, engines, environ, journal, cgroups, keeping)


def make_fleet(settings: Settings, engines: EngineRuntimes, lives: VllmLauncher) -> WorkerManager:
    """The fleet; each worker goes by the settings that are in force when it starts."""

    def worker(plan: Plan, moved: Callable[[Worker], None]) -> Worker:
        now = engines.settings
        return Worker(plan, lives, now.worker, now.scheduler, moved)

    return WorkerManager(Scheduler(limits_of(settings), engines.machine), worker)


def gateway_launch(
    settings: Settings,
    http: Sequence[socket.socket],
    environ: Mapping[str, str],
    features: EngineFeatures | None,
) -> GatewayLaunch:
    """Gateways inherit the listening sockets, and nothing that is systemd's or ours."""
    numbers = tuple(sock.fileno() for sock in http)
    told = for_gateway(settings, numbers, loopback=all_loopback(http), features=features)
    return GatewayLaunch(
        settings=encode(told),
        sockets=numbers,
        environment=_LARGE_BODIES
        # A gateway's log goes where ours goes, and in the same form.
        | {k: v for k, v in environ.items() if k not in PRIVATE_VARIABLES - {"JOURNAL_STREAM"}},
        drain_timeout=settings.server.drain_timeout,
    )


@contextmanager
def sockets(
    settings: Settings, inherited: Inherited
) -> Generator[tuple[socket.socket, list[socket.socket]]]:
    """The control socket and the public ones: systemd's, or bound here and unlinked at the end."""
    systemds = given(inherited)
    with ExitStack() as stack:
        control = systemds.control
        if control is None:
            control = bind_control(settings.paths.control, settings.control.group)
            stack.callback(settings.paths.control.unlink, missing_ok=True)
        stack.enter_context(control)
        http = list(systemds.http) or bind_http(settings.server.listen)
        for sock in http:
            stack.enter_context(sock)
        refuse_unguarded(settings, http)
        yield control, http


def refuse_unguarded(settings: Settings, http: Sequence[socket.socket]) -> None:
    """Raise ConfigError for an address of systemd's that the configuration would not have had."""
    public = [sock for sock in http if not all_loopback([sock])]
    if public and not (settings.api_keys or settings.server.allow_unauthenticated):
        raise ConfigError((f"a socket of systemd's: {unguarded(address_of(public[0]))}",))


def close_own(http: Sequence[socket.socket], inherited: Inherited) -> None:
    """Refuse new connections at once; systemd's sockets keep them for whoever comes next."""
    if not inherited.get("http"):
        for sock in http:
            sock.close()


def prepare_folders(settings: Settings, kept: Collection[str] = ()) -> None:
    """Make our directories, ours alone, and clear away what a daemon that died left in `run`.

    But the folders of workers that are `kept` are left alone.
    """
    paths = settings.paths
    try:
        for folder in (paths.state, paths.cache, paths.logs, paths.run):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        paths.models.mkdir(parents=True, exist_ok=True)
        workers = paths.run / "w"
        workers.mkdir(exist_ok=True)
        workers.chmod(0o700)
        for folder in workers.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise HostProblem(
            f"cannot make {error.filename}: {error.strerror}",
            hint="run vllamad as a user that may write there, or set VLLAMAD_HOME",
        ) from error


def warn_of_noexec(folders: Iterable[Path]) -> None:
    """Say where compiled code could not be run: an engine that compiles would fail there later."""
    for folder in folders:
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            why = "it is mounted noexec, and engines compile there"
            event(
                log,
                logging.WARNING,
                "cannot run compiled code",
                LogEvent.FOLDER_NOEXEC,
                folder=str(folder),
                why=why,
            )


def sweep(models: Path) -> None:
    """Remove what no model needs, while nobody can be making one."""
    try:
        upload_blobs.remove_old_blobs(models)
        derived.remove_unused_adapters(models)
    except OSError as error:
        event(log, logging.WARNING, "cannot tidy the model store", error=str(error))


async def heartbeat(notify: Notifier, environ: Mapping[str, str], daemon: Daemon) -> None:
    """See `supervisor/watchdog.py`."""
    await beat(
        notify,
        watchdog_interval(environ, daemon.pid),
        broker=daemon.settings.paths.broker,
        control=daemon.settings.paths.control,
    )


def stop_limit(settings: Settings) -> float:
    """Seconds that a stop takes at most: gateways, then workers, then what is ours."""
    server, worker = settings.server, settings.worker
    return (
        server.drain_timeout + worker.drain_timeout + worker.stop_timeout + worker.kill_timeout + 30
    )
