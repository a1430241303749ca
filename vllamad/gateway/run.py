"""One gateway process: settings from standard input, requests on the inherited sockets."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
import trio

from vllamad.access.host_and_origin import Gate
from vllamad.gateway.app import make_app
from vllamad.gateway.context import Context
from vllamad.gateway.inference.token_pump import open_hub
from vllamad.gateway.inference.upstream import RelayLimits
from vllamad.gateway.server.connection import ServerLimits
from vllamad.gateway.server.listen import serve
from vllamad.gateway.supervisor_client import SupervisorClient
from vllamad.host import log as own_log
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.machine import fd_limit
from vllamad.host.machine.network_addresses import own_addresses
from vllamad.models.installed import InstalledModels
from vllamad.protocol.gateway_setup import (
    RETIRE,
    SERVING,
    TOLD_ON,
    GatewaySettings,
    decode_settings,
)

log = logging.getLogger(__name__)

_EACH: Final = 3  # descriptors of a request: its client, its lease, its engine
_SPARE: Final = 64  # for our own files, model files, and clients that are turned away
_FEWEST: Final = 8  # connections, however few descriptors there are


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        pipe = int(os.environ.pop(TOLD_ON, ""))
        os.set_inheritable(pipe, False)
        settings = decode_settings(sys.stdin.buffer.readline())
    except (msgspec.DecodeError, ValueError, OSError) as error:
        print(f"vllamad: a gateway is started by the supervisor only: {error}", file=sys.stderr)
        return 2
    own_log.configure(
        format=settings.logging.format, level=settings.logging.level, environ=os.environ
    )
    # Other threads of this interpreter must not keep the tokens waiting for 5 ms.
    sys.setswitchinterval(0.0005)
    # The supervisor decides what Ctrl-C at a terminal, and its end, mean; and the terminal's own
    # group being another one, what we log must not stop us.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    trio.run(_run, settings, pipe)
    return 0


async def _run(settings: GatewaySettings, pipe: int) -> None:
    sockets = [socket.socket(fileno=number) for number in settings.sockets]
    async with open_hub() as hub:
        context = Context(
            settings=settings,
            installed_models=InstalledModels(
                settings.models_dir,
                settings.models,
                engine=settings.features,
                caches=settings.caches,
            ),
            gate=_gate(settings),
            limits=RelayLimits(),
            orders=SupervisorClient(settings.control),
        )
        shutdown, retire = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_die_with_supervisor)
            await nursery.start(_until_asked, shutdown, retire)
            async with trio.open_nursery() as serving:
                closed: trio.Event = await serving.start(
                    partial(
                        serve,
                        make_app(context, hub),
                        sockets,
                        shutdown=shutdown,
                        retire=retire,
                        limits=_limits(settings),
                    )
                )
                _tell_the_supervisor(pipe, SERVING)
                await closed.wait()
                _tell_the_supervisor(pipe, b"")
            nursery.cancel_scope.cancel()


def _tell_the_supervisor(pipe: int, word: bytes) -> None:
    """The supervisor's pipe: a byte once we serve, its end once we accept no connection."""
    try:
        if word:
            os.write(pipe, word)
        else:
            os.close(pipe)
    except BrokenPipeError:
        pass  # it is gone, and so are we in a moment


def _limits(settings: GatewaySettings) -> ServerLimits:
    """As many connections as there are descriptors for: running out of them hurts all at once."""
    room = max(_FEWEST, (fd_limit.limit() - _SPARE) // _EACH)
    limits = ServerLimits(drain=settings.server.drain_timeout)
    return replace(
        limits,
        connections=min(limits.connections, room),
        bodies=max(limits.bodies, 4 * settings.server.max_body),
    )


async def _until_asked(
    shutdown: trio.Event,
    retire: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGTERM: end within the drain limit. RETIRE: accept no connection, end with the last one."""
    with trio.open_signal_receiver(signal.SIGTERM, RETIRE) as signals:
        task_status.started()
        async for number in signals:
            event(log, logging.INFO, "gateway stopping", LogEvent.GATEWAY_STOPPING)
            (retire if number == RETIRE else shutdown).set()


def _gate(settings: GatewaySettings) -> Gate:
    return Gate(
        bind_is_loopback=settings.loopback,
        own_names=frozenset({socket.gethostname()}),
        own_addresses=frozenset(own_addresses()),
        hosts=settings.server.allowed_hosts,
        origins=settings.server.allowed_origins,
    )


async def _die_with_supervisor() -> None:
    """Without a supervisor there are no leases, and the port must be free for the next one.

    Standard input stays open as long as it lives. A death signal (PR_SET_PDEATHSIG) will not do:
    it comes when the thread that started us ends, and trio starts processes in worker threads.
    """
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lifeline:
        await lifeline.receive_some(1)
    os._exit(1)
