"""The supervisor from its start to its end: `prepare`, `build`, `serve`.

`serve` is a page of nested nurseries. Leaving them from inner to outer is the shutdown order:
gateways finish their streams, workers are drained and stopped, then the sockets close.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from vllamad.config.settings import Settings
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.launch import Plan
from vllamad.core.scheduler import Scheduler
from vllamad.errors import HostProblem
from vllamad.host.listeners import address_of, all_loopback
from vllamad.host.log import event, is_journal
from vllamad.host.log_events import LogEvent
from vllamad.host.machine import gpu_detection
from vllamad.host.processes.cgroup import Cgroups, claim
from vllamad.host.processes.shim import become_subreaper
from vllamad.host.systemd.journal import open_journal
from vllamad.host.systemd.notify import PRIVATE_VARIABLES, Notifier, watchdog_interval
from vllamad.host.systemd.unit_job import pending_job
from vllamad.http.control_server import serve_http
from vllamad.models.installed import InstalledModels
from vllamad.protocol.gateway_setup import encode_settings, for_gateway
from vllamad.supervisor.control_routes import Control, Daemon
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.folders import prepare_folders, tidy_store, warn_of_noexec
from vllamad.supervisor.gateways import GatewayLaunch, Gateways
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.models.model_changes import ModelChanges
from vllamad.supervisor.public_sockets import (
    Inherited,
    close_own,
    open_sockets,
    refuse_unguarded,
)
from vllamad.supervisor.reload import Parts, Reloader, apply, limits_of, preload
from vllamad.supervisor.signals import SignalRequests, listen_for_signals
from vllamad.supervisor.status_text import extend_timeout, send_status, serving, stopping
from vllamad.supervisor.watchdog import beat, guarded, until_serving
from vllamad.supervisor.workers.engine_process import VllmLauncher
from vllamad.supervisor.workers.handover import Handover, look_for_survivors
from vllamad.supervisor.workers.lease_server import LeaseServer, listen
from vllamad.supervisor.workers.manager import WorkerManager
from vllamad.supervisor.workers.worker import Worker

log = logging.getLogger(__name__)

# mallopt(3): without it glibc learns from the first large body to keep the next ones' memory.
_LARGE_BODIES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What the daemon was started with, and its links to the service manager."""

    settings: Settings
    inherited: Inherited
    environ: Mapping[str, str]
    notify: Notifier
    reloader: Reloader
    requests: SignalRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine offers: workers of a previous daemon, cgroups, the engine's runtime."""

    handover: Handover
    cgroups: Cgroups | None
    engines: EngineRuntimes


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of a daemon that live for as long as it serves."""

    daemon: Daemon
    launcher: VllmLauncher
    gateways: Gateways
    launch: Callable[[Settings], GatewayLaunch]


async def run(
    settings: Settings,
    inherited: Inherited,
    environ: Mapping[str, str],
    read: Callable[[], Settings],
) -> None:
    """Supervise until SIGTERM or SIGINT. Raises HostProblem if it cannot start.

    `read` reads the settings anew, for a reload.
    """
    become_subreaper()
    notify = Notifier(environ)
    notify.status("starting")
    reloader = Reloader(notify, read)
    async with listen_for_signals(notify, reloader.request, terminal=os.isatty(0)) as requests:
        startup = Startup(
            settings=settings, inherited=inherited, environ=environ,
            notify=notify, reloader=reloader, requests=requests,
        )  # fmt: skip
        host = await prepare(startup)
        with open_sockets(settings, inherited) as (control, http):
            await remove_leftovers(settings, host)
            services = build(startup, host, http)
            await serve(startup, host, services, control, http)
    event(log, logging.INFO, "stopped", LogEvent.DAEMON_STOPPED)


async def prepare(startup: Startup) -> Host:
    """Find what the machine offers; nothing is started or removed yet."""
    settings, environ = startup.settings, startup.environ
    log_ignored_settings(settings)
    handover = await look_for_survivors(settings, environ)
    cgroups = claim_cgroups(settings)
    look_for_gpus = partial(gpu_detection.look, environ.get("CUDA_VISIBLE_DEVICES"))
    engines = EngineRuntimes(settings, look_for_gpus)
    await engines.look()
    return Host(handover=handover, cgroups=cgroups, engines=engines)


async def remove_leftovers(settings: Settings, host: Host) -> None:
    """Make our folders, and remove what a previous daemon left in them.

    The control socket must be ours by now: another vllamad may still use these folders before.
    """
    in_use = {worker.name for worker in host.handover.survivors.values()}
    prepare_folders(settings, in_use)
    warn_of_noexec([settings.paths.cache])
    if host.cgroups:
        ended = await host.cgroups.sweep(in_use, limit=settings.worker.kill_timeout)
        if ended:
            text = "ended leftover worker processes"
            event(log, logging.WARNING, text, LogEvent.LEFTOVERS_ENDED, workers=len(ended))
    await trio.to_thread.run_sync(tidy_store, settings.paths.models)


def build(startup: Startup, host: Host, http: Sequence[socket.socket]) -> Services:
    """Put the parts together; none of them runs yet."""
    settings, environ, engines = startup.settings, startup.environ, host.engines
    journal = open_journal() if is_journal(environ) else None
    launcher = VllmLauncher(settings, engines, environ, journal, host.cgroups, host.handover)
    manager = build_manager(settings, engines, launcher)
    paths = settings.paths
    installed = InstalledModels(
        paths.models, settings.models, engine=engines.features, caches=settings.caches
    )
    library = Library(settings, installed, engines, manager.measured, environ)

    def launch(settings: Settings) -> GatewayLaunch:
        refuse_unguarded(settings, http)
        return gateway_launch(settings, http, environ, engines.features)

    gateways = Gateways(launch(settings), settings.server.gateways)
    daemon = Daemon(
        settings=settings,
        listen=[address_of(sock) for sock in http],
        reload=startup.reloader.request,
        fleet=manager,
        library=library,
        orders=ModelChanges(paths.models, installed, library, manager),
        started=time.time(),
        now=time.time,
        pid=os.getpid(),
        uid=os.geteuid(),
        gateways=lambda: len(gateways.pids),
        runtime=engines.info,
        waiting_for=lambda: engines.waiting_for,
    )
    return Services(daemon=daemon, launcher=launcher, gateways=gateways, launch=launch)


async def serve(
    startup: Startup,
    host: Host,
    services: Services,
    control: socket.socket,
    http: Sequence[socket.socket],
) -> None:
    """Serve until a stop is requested, then stop in order."""
    daemon, notify = services.daemon, startup.notify
    manager = daemon.fleet
    async with control_plane(daemon, control, host.handover, notify) as control_tasks:
        control_tasks.start_soon(send_status, notify, partial(status_line, startup, host, daemon))
        async with trio.open_nursery() as data_plane:
            data_plane.start_soon(services.gateways.run)
            async with trio.open_nursery() as background:  # until a stop is requested
                background.start_soon(
                    announce_and_reload, startup, host, services, http[0], control_tasks, background
                )
                await startup.requests.stop.wait()
                background.cancel_scope.cancel()
            control_tasks.start_soon(extend_timeout, notify, stop_limit(daemon.settings))
            manager.drain()
            close_own(http, startup.inherited)
            services.gateways.stop()
        # After the last response: until then a client that is being served may send another.
        restarts = host.handover.store is not None and await pending_job() != "stop"
        await manager.close(hand_over=restarts)


async def announce_and_reload(
    startup: Startup,
    host: Host,
    services: Services,
    http: socket.socket,
    control_tasks: trio.Nursery,
    background: trio.Nursery,
) -> None:
    """Report readiness once both sockets answer, preload, then reload on request."""
    daemon, settings = services.daemon, startup.settings
    startup.requests.prepared()
    await until_serving(http, settings.paths.control)
    startup.notify.ready()
    listening = ", ".join(daemon.listen)
    event(log, logging.INFO, "ready", LogEvent.DAEMON_READY, listen=listening)
    control_tasks.start_soon(heartbeat, startup, daemon)
    background.start_soon(preload, daemon.fleet, daemon.library, settings.scheduler.preload)
    parts = Parts(
        daemon=daemon, fleet=daemon.fleet, library=daemon.library, engines=host.engines,
        launcher=services.launcher, gateways=services.gateways, launch=services.launch,
        background=background,
    )  # fmt: skip
    await startup.reloader.run(lambda: daemon.settings, partial(apply, parts))


@asynccontextmanager
async def control_plane(
    daemon: Daemon, control: socket.socket, handover: Handover, notify: Notifier
) -> AsyncGenerator[trio.Nursery]:
    """Worker manager, lease server and control socket, until the end of the block."""
    paths, manager = daemon.settings.paths, daemon.fleet
    lease_server = LeaseServer(manager, daemon.library.spec)
    lease_listener = listen(paths.broker)
    control_listener = trio.SocketListener(trio.socket.from_stdlib_socket(control))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(guarded, notify, manager.run)
            for survivor in [*handover.survivors.values()]:
                manager.adopt(survivor.facts.plan, survivor.keep_alive)
            await nursery.start(daemon.library.pulls.run)
            nursery.start_soon(trio.serve_listeners, lease_server.attend, [lease_listener])
            nursery.start_soon(serve_http, control_listener, Control(daemon).handle)
            yield nursery
            nursery.cancel_scope.cancel()
    finally:
        paths.broker.unlink(missing_ok=True)


def log_ignored_settings(settings: Settings) -> None:
    for remark in settings.remarks:
        level = logging.DEBUG if remark.expected else logging.INFO
        fields = {"setting": remark.name, "why": remark.why}
        event(log, level, "setting has no effect", LogEvent.CONFIG_IGNORED, **fields)


def claim_cgroups(settings: Settings) -> Cgroups | None:
    """The cgroups that were delegated to us; None where none were, which is logged."""
    try:
        return claim(keep_workers=settings.worker.keep_workers)
    except HostProblem as problem:
        text, why = "workers run without cgroups", problem.message
        event(log, logging.INFO, text, LogEvent.CGROUPS_UNAVAILABLE, why=why)
        return None


def build_manager(
    settings: Settings, engines: EngineRuntimes, launcher: VllmLauncher
) -> WorkerManager:
    """The worker manager; a worker uses the settings that are in force when it starts."""

    def worker(plan: Plan, moved: Callable[[Worker], None]) -> Worker:
        now = engines.settings
        return Worker(plan, launcher, now.worker, now.scheduler, moved)

    return WorkerManager(Scheduler(limits_of(settings), engines.machine), worker)


def gateway_launch(
    settings: Settings,
    http: Sequence[socket.socket],
    environ: Mapping[str, str],
    features: EngineFeatures | None,
) -> GatewayLaunch:
    """Gateways inherit the listening sockets, and no variable of systemd's or ours."""
    descriptors = tuple(sock.fileno() for sock in http)
    setup = for_gateway(settings, descriptors, loopback=all_loopback(http), features=features)
    # A gateway logs to the same place as the supervisor, in the same form.
    private = PRIVATE_VARIABLES - {"JOURNAL_STREAM"}
    return GatewayLaunch(
        settings=encode_settings(setup),
        sockets=descriptors,
        environment=_LARGE_BODIES
        | {name: value for name, value in environ.items() if name not in private},
        drain_timeout=settings.server.drain_timeout,
    )


def status_line(startup: Startup, host: Host, daemon: Daemon) -> str:
    """The line for `systemctl status`."""
    workers, requests = daemon.fleet.workers(), startup.requests
    if requests.stop.is_set():
        return stopping(workers, trio.current_time() - requests.stop_since)
    missing, problem = host.engines.waiting_for, startup.reloader.problem
    return serving(workers, waiting_for=missing, problem=problem)


async def heartbeat(startup: Startup, daemon: Daemon) -> None:
    """Feed the watchdog; see `supervisor/watchdog.py`."""
    paths = daemon.settings.paths
    interval = watchdog_interval(startup.environ, daemon.pid)
    await beat(startup.notify, interval, broker=paths.broker, control=paths.control)


def stop_limit(settings: Settings) -> float:
    """Seconds that a stop takes at most: gateways, then workers, then the rest."""
    server, worker = settings.server, settings.worker
    return (
        server.drain_timeout + worker.drain_timeout + worker.stop_timeout + worker.kill_timeout + 30
    )
