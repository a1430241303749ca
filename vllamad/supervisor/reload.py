"""Reloads the configuration: differences are applied without a restart or a broken stream.

The effect of a changed key is decided in `config/changes.py`, whether a worker must be replaced in
`core/launch.py`. A configuration with a fault changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf

import trio

from vllamad.config.changes import changed_settings, in_force
from vllamad.config.settings import Settings
from vllamad.core.launch import Spec
from vllamad.core.scheduler import Limits
from vllamad.errors import ConfigError, ModelNotFound, VllamadError
from vllamad.host import log as daemon_log
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.systemd.notify import Notifier
from vllamad.protocol.control import Reloaded
from vllamad.supervisor.control_handlers import Daemon
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.gateways import GatewayLaunch, Gateways
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.progress_responses import Attempt
from vllamad.supervisor.workers.engine_process import VllmLauncher
from vllamad.supervisor.workers.manager import WorkerManager

log = logging.getLogger(__name__)

_HINT = "nothing has changed: the previous configuration stays in force"

Apply = Callable[[Settings], Awaitable[list[str]]]


class Reloader:
    """Carries out requested reloads, one after the other."""

    def __init__(self, notify: Notifier, read: Callable[[], Settings]) -> None:
        """`read` reads every source anew, in a thread. Raises ConfigError."""
        self.problem = ""  # why the last attempt failed
        self._notify = notify
        self._read = read
        self._scheduled: Attempt | None = None
        self._requested = trio.Event()

    def request(self) -> Attempt:
        """Schedule a reload; requests made before it starts share it."""
        if self._scheduled is None:
            self._scheduled = Attempt()
            self._requested.set()
        return self._scheduled

    async def run(self, present: Callable[[], Settings], apply: Apply) -> None:
        """Carry out reloads until cancelled.

        `apply` puts the given settings in force, and returns the models whose workers it replaces.
        """
        while True:
            await self._requested.wait()
            self._requested = trio.Event()
            attempt, self._scheduled = self._scheduled, None
            assert attempt is not None
            self._notify.reloading()
            try:
                await self._reload(attempt, present(), apply)
            except VllamadError as error:
                attempt.error = error
                self.problem = error.message.partition("\n")[0]
                event(
                    log,
                    logging.ERROR,
                    "cannot reload the configuration",
                    LogEvent.CONFIG_REJECTED,
                    error=error.message,
                    hint=error.hint,
                )
            finally:
                attempt.decided.set()
                attempt.over.set()
            self._notify.ready()  # but not after STOPPING, where we are cancelled

    async def _reload(self, attempt: Attempt, old: Settings, apply: Apply) -> None:
        try:
            new = await trio.to_thread.run_sync(self._read)
        except ConfigError as error:
            raise ConfigError(error.problems, hint=_HINT) from error
        differences = {key: str(effect) for key, effect in changed_settings(old, new).items()}
        attempt.outcome = Reloaded(changes=differences)
        attempt.decided.set()
        replaced = await apply(in_force(old, new))
        attempt.outcome = Reloaded(changes=differences, replaced=replaced)
        self.problem = ""
        event(
            log,
            logging.INFO,
            "configuration reloaded",
            LogEvent.CONFIG_RELOADED,
            changed=", ".join(differences) or "nothing",
            replaced=", ".join(replaced) or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the daemon that depend on the settings."""

    daemon: Daemon
    fleet: WorkerManager
    library: Library
    engines: EngineRuntimes
    launcher: VllmLauncher
    gateways: Gateways
    launch: Callable[[Settings], GatewayLaunch]
    background: trio.Nursery


async def apply(parts: Parts, new: Settings) -> list[str]:
    """Put `new` in force; return the models whose workers are replaced when idle.

    With nothing changed it raises ConfigError if they do not permit our sockets, and HostProblem
    if the new gateways do not serve.
    """
    old = parts.daemon.settings
    parts.engines.settings = new
    await parts.engines.look()  # a launch has the parsers of the engine
    try:
        launch, count = parts.launch(new), new.server.gateways
        if not parts.gateways.serve(launch, count):
            await parts.gateways.renew(launch, count)
    except VllamadError:
        parts.engines.settings = old
        raise
    daemon_log.configure(new.logging.format, new.logging.level)
    parts.daemon.settings = new
    parts.launcher.configure(new)
    parts.library.configure(new)
    parts.fleet.measured(parts.engines.machine)
    specs = await _specs(parts)
    parts.fleet.change_limits(limits_of(new), {spec.model: spec.keep_alive for spec in specs})
    outdated = [spec for spec in specs if parts.fleet.outdated(spec)]
    for spec in outdated:
        keep_alive = parts.fleet.requested_keep_alive(spec.model)
        parts.background.start_soon(replace, parts.fleet, parts.library, spec.model, keep_alive)
    more = [name for name in new.scheduler.preload if name not in old.scheduler.preload]
    parts.background.start_soon(preload, parts.fleet, parts.library, more)
    return [spec.model for spec in outdated]


async def preload(fleet: WorkerManager, library: Library, names: Sequence[str]) -> None:
    """Load these models one after the other, and keep them loaded."""
    for name in names:
        try:
            await fleet.load(await library.spec(name), inf)
        except VllamadError as error:
            event(
                log,
                logging.ERROR,
                "cannot preload",
                LogEvent.MODEL_PRELOAD_FAILED,
                model=name,
                error=error.message,
            )


async def replace(
    fleet: WorkerManager, library: Library, model: str, keep_alive: float | None
) -> None:
    """Load a model with its present settings; its worker with the previous ones is stopped."""
    try:
        await fleet.load(await library.spec(model), keep_alive)
    except VllamadError as error:
        event(log, logging.ERROR, "cannot replace the worker", model=model, error=error.message)


def limits_of(settings: Settings) -> Limits:
    """The scheduler's part of the settings."""
    configured = settings.scheduler
    return Limits(
        keep_alive=configured.keep_alive,
        max_loaded=configured.max_loaded_models,
        max_queue=configured.max_queue,
        max_running=configured.max_running,
        queue_timeout=configured.queue_timeout,
        failed_cooldown=settings.worker.failed_cooldown,
    )


async def _specs(parts: Parts) -> list[Spec]:
    """The spec each worker would be started with now; workers of removed models are unloaded."""
    specs: list[Spec] = []
    for worker in parts.fleet.workers():
        try:
            specs.append(await parts.library.spec(worker.model))
        except ModelNotFound:  # a configured folder that was removed from the configuration
            parts.fleet.unload(worker.model)
        except VllamadError as error:
            event(
                log,
                logging.WARNING,
                "cannot plan the worker",
                model=worker.model,
                error=error.message,
            )
    return specs
