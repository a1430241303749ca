"""The whole control plane as one page of nested nurseries.

Leaving inner to outer is the shutdown order: gateways finish their streams, workers are drained and
stopped, then the sockets close.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from vllamad.config.settings import Settings
from vllamad.core.scheduler import Limits, Scheduler
from vllamad.errors import HostProblem, VllamadError
from vllamad.host import nvidia
from vllamad.host.cgroup import Cgroups, claim
from vllamad.host.control_socket import bind_control
from vllamad.host.http_server import serve_http
from vllamad.host.journal import open_journal
from vllamad.host.listeners import all_loopback, bind_http
from vllamad.host.log import event, is_journal
from vllamad.host.shim import become_subreaper
from vllamad.host.systemd import PRIVATE_VARIABLES, Notifier, watchdog_interval
from vllamad.host.tasks import first_of
from vllamad.models import blobs, derived
from vllamad.models.catalog import Catalog
from vllamad.supervisor.broker import Broker, listen
from vllamad.supervisor.control import Control, Daemon
from vllamad.supervisor.engines import Engines
from vllamad.supervisor.fleet import Fleet
from vllamad.supervisor.gateways import GatewayLaunch, Gateways
from vllamad.supervisor.health import beat, until_serving
from vllamad.supervisor.library import Library
from vllamad.supervisor.lives import EngineLives
from vllamad.supervisor.orders import Orders
from vllamad.supervisor.worker import Worker
from vllamad.wire.gateway import EngineParsers, encode, for_gateway

log = logging.getLogger(__name__)

# mallopt(3): without it glibc learns from the first large body to keep the next ones' memory.
_LARGE_BODIES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}

Inherited = Mapping[str, Sequence[socket.socket]]


async def run(settings: Settings, inherited: Inherited, environ: Mapping[str, str]) -> None:
    """Be the supervisor until SIGTERM or SIGINT. Raises HostProblem if it cannot begin."""
    become_subreaper()
    cgroups = claim_cgroups()
    notify = Notifier(environ)
    engines = Engines(settings, partial(nvidia.look, environ.get("CUDA_VISIBLE_DEVICES")))
    await engines.look()
    fleet = make_fleet(settings, engines, environ, cgroups)
    catalog = Catalog(settings.paths.models, settings.models, engine=engines.parsers)
    library = Library(settings, catalog, engines, fleet.measured, environ)
    with (
        sockets(settings, inherited) as (control_socket, http),
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
    ):
        # Only now: while another vllamad lives, what is in these folders is not left behind.
        prepare_folders(settings)
        if cgroups and (found := await cgroups.sweep((), limit=settings.worker.kill_timeout)):
            event(log, logging.WARNING, "ended what was left of workers", workers=len(found))
        await trio.to_thread.run_sync(sweep, settings.paths.models)
        gateways = make_gateways(settings, http, environ, engines.parsers)
        daemon = Daemon(
            settings=settings,
            fleet=fleet,
            library=library,
            orders=Orders(settings.paths.models, catalog, library, fleet),
            started=time.time(),
            now=time.time,
            pid=os.getpid(),
            uid=os.geteuid(),
            gateways=lambda: len(gateways.pids),
            runtime=engines.info,
        )
        broker = Broker(fleet, library.spec)
        async with (
            control_plane(fleet, broker, daemon, control_socket) as up,
            trio.open_nursery() as data_plane,
        ):
            data_plane.start_soon(gateways.run)

            async def serve() -> None:
                await until_serving(http[0], settings.paths.control)
                notify.ready()
                event(log, logging.INFO, "ready", listen=", ".join(settings.server.listen))
                up.start_soon(heartbeat, notify, environ, daemon)
                up.start_soon(preload, settings, fleet, library)
                await trio.sleep_forever()

            await first_of(serve, partial(anext, signals))
            notify.stopping()
            event(log, logging.INFO, "stopping")
            up.start_soon(skip_the_drain, signals, up.cancel_scope)
            close_own(http, inherited)
            gateways.stop()
            await fleet.close()
    event(log, logging.INFO, "stopped")


@asynccontextmanager
async def control_plane(
    fleet: Fleet, broker: Broker, daemon: Daemon, control: socket.socket
) -> AsyncGenerator[trio.Nursery]:
    """Fleet, broker and control socket, from here to the end of the block."""
    paths = daemon.settings.paths
    broker_listener = listen(paths.broker)
    control_listener = trio.SocketListener(trio.socket.from_stdlib_socket(control))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(fleet.run)
            nursery.start_soon(trio.serve_listeners, broker.attend, [broker_listener])
            nursery.start_soon(serve_http, control_listener, Control(daemon).handle)
            yield nursery
            nursery.cancel_scope.cancel()
    finally:
        paths.broker.unlink(missing_ok=True)


def claim_cgroups() -> Cgroups | None:
    """What was delegated to us; None, and why, where nothing was."""
    try:
        return claim(keeping=False)
    except HostProblem as problem:
        event(log, logging.INFO, "process groups, no cgroups", why=problem.message)
        return None


def make_fleet(
    settings: Settings, engines: Engines, environ: Mapping[str, str], cgroups: Cgroups | None
) -> Fleet:
    """The fleet and what its workers are made of."""
    own = settings.scheduler
    limits = Limits(
        keep_alive=own.keep_alive,
        max_loaded=own.max_loaded_models,
        max_queue=own.max_queue,
        max_running=own.max_running,
        queue_timeout=own.queue_timeout,
        failed_cooldown=settings.worker.failed_cooldown,
    )
    journal = open_journal() if is_journal(environ) else None
    lives = EngineLives(settings, engines, environ, journal, cgroups)
    return Fleet(
        Scheduler(limits, engines.machine),
        lambda plan, moved: Worker(plan, lives, settings.worker, own, moved),
    )


def make_gateways(
    settings: Settings,
    http: Sequence[socket.socket],
    environ: Mapping[str, str],
    parsers: EngineParsers | None,
) -> Gateways:
    """The gateways, which inherit the listening sockets and nothing that is systemd's or ours."""
    numbers = tuple(sock.fileno() for sock in http)
    told = for_gateway(settings, numbers, loopback=all_loopback(http), parsers=parsers)
    launch = GatewayLaunch(
        settings=encode(told),
        sockets=numbers,
        environment=_LARGE_BODIES
        # A gateway's log goes where ours goes, and in the same form.
        | {k: v for k, v in environ.items() if k not in PRIVATE_VARIABLES - {"JOURNAL_STREAM"}},
        drain_timeout=settings.server.drain_timeout,
    )
    return Gateways(launch, settings.server.gateways)


@contextmanager
def sockets(
    settings: Settings, inherited: Inherited
) -> Generator[tuple[socket.socket, list[socket.socket]]]:
    """The control socket and the public ones: systemd's, or bound here and unlinked at the end."""
    with ExitStack() as stack:
        if inherited.get("ctl"):
            control = inherited["ctl"][0]
        else:
            control = bind_control(settings.paths.control, settings.control.group)
            stack.callback(settings.paths.control.unlink, missing_ok=True)
        stack.enter_context(control)
        http = list(inherited.get("http", ())) or bind_http(settings.server.listen)
        for sock in http:
            stack.enter_context(sock)
        yield control, http


def close_own(http: Sequence[socket.socket], inherited: Inherited) -> None:
    """Refuse new connections at once; systemd's sockets keep them for whoever comes next."""
    if not inherited.get("http"):
        for sock in http:
            sock.close()


def prepare_folders(settings: Settings) -> None:
    """Make our directories, ours alone, and clear away what a daemon that died left in `run`."""
    paths = settings.paths
    try:
        for folder in (paths.state, paths.cache, paths.logs, paths.run):
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        shutil.rmtree(paths.run / "w", ignore_errors=True)
        (paths.run / "w").mkdir(mode=0o700)
    except OSError as error:
        raise HostProblem(
            f"cannot make {error.filename}: {error.strerror}",
            hint="run vllamad as a user that may write there, or set VLLAMAD_HOME",
        ) from error


def sweep(models: Path) -> None:
    """Remove what no model needs, while nobody can be making one."""
    try:
        blobs.sweep(models)
        derived.tidy(models)
    except OSError as error:
        event(log, logging.WARNING, "cannot tidy the model store", error=str(error))


async def heartbeat(notify: Notifier, environ: Mapping[str, str], daemon: Daemon) -> None:
    """See `supervisor/health.py`."""
    await beat(
        notify,
        watchdog_interval(environ, daemon.pid),
        broker=daemon.settings.paths.broker,
        control=daemon.settings.paths.control,
        workers=daemon.fleet.workers,
    )


async def preload(settings: Settings, fleet: Fleet, library: Library) -> None:
    """Load what should be there from the start, one after the other, and keep it."""
    for name in settings.scheduler.preload:
        try:
            await fleet.load(await library.spec(name))
        except VllamadError as error:
            event(log, logging.ERROR, "cannot preload", model=name, error=error.message)


async def skip_the_drain(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """A second signal means: now."""
    async for _ in signals:
        event(log, logging.WARNING, "stopping at once")
        scope.cancel()
