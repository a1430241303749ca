"""Turns signals into requests: stop, stop now, reload.

How these are carried out is not known here.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.systemd.notify import Notifier
from vllamad.supervisor.status_text import extend_timeout

log = logging.getLogger(__name__)

_START_LIMIT = 600.0  # seconds; systemd is asked for more start time no longer than that


class SignalRequests:
    """The requests that signals have made so far."""

    def __init__(self, notify: Notifier, starting: trio.CancelScope, *, terminal: bool) -> None:
        """When run from a `terminal`, SIGHUP stops the daemon instead of reloading it."""
        self.stop = trio.Event()
        self.stop_since = 0.0
        self._notify = notify
        self._starting = starting
        self._terminal = terminal

    def prepared(self) -> None:
        """End the requests for more start time: preparation is over."""
        self._starting.cancel()

    async def handle(
        self,
        signals: AsyncIterator[int],
        reload: Callable[[], object],
        everything: trio.CancelScope,
    ) -> None:
        """Handle signals; a second stop signal stops everything now."""
        async for number in signals:
            if number == signal.SIGHUP and not self._terminal:
                reload()
            elif not self.stop.is_set():
                self._notify.stopping()
                event(log, logging.INFO, "stopping", LogEvent.DAEMON_STOPPING)
                self.stop_since = trio.current_time()
                self.stop.set()
            else:
                event(log, logging.WARNING, "stopping now", LogEvent.DAEMON_STOPPING_NOW)
                everything.cancel()


@asynccontextmanager
async def listen_for_signals(
    notify: Notifier, reload: Callable[[], object], *, terminal: bool = False
) -> AsyncGenerator[SignalRequests]:
    """Handle signals until the end of the block; by default each would kill the daemon."""
    handled = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores it for a background job: Ctrl-C is meant for the foreground one.
        handled.remove(signal.SIGINT)
    with trio.open_signal_receiver(*handled) as signals:
        async with trio.open_nursery() as nursery:
            starting: trio.CancelScope = await nursery.start(extend_timeout, notify, _START_LIMIT)
            requests = SignalRequests(notify, starting, terminal=terminal)
            nursery.start_soon(requests.handle, signals, reload, nursery.cancel_scope)
            yield requests
            nursery.cancel_scope.cancel()
