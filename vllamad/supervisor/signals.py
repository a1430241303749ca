"""What the outside asks by signals: to stop, to stop at once, to reload.

It must not know how any of it is done.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.systemd import Notifier
from vllamad.supervisor.status_text import ask_for_time

log = logging.getLogger(__name__)

_START_LIMIT = 600.0  # seconds for which the manager is asked for more time to start


class SignalRequests:
    """What was asked so far."""

    def __init__(self, notify: Notifier, starting: trio.CancelScope, *, terminal: bool) -> None:
        """At a `terminal` a hangup is its end, and ours."""
        self.stop = trio.Event()
        self.stop_since = 0.0
        self._notify = notify
        self._starting = starting
        self._terminal = terminal

    def prepared(self) -> None:
        """What may take its time before we serve is done: ask for no more of it."""
        self._starting.cancel()

    async def heed(
        self,
        signals: AsyncIterator[int],
        reload: Callable[[], object],
        everything: trio.CancelScope,
    ) -> None:
        """Do as the signals say; a second one to stop means: now."""
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
    """Heed signals for as long as the block lasts; by default each would end us as we stand."""
    heeded = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script that runs us in the background has it ignored: its own Ctrl-C is not for us.
        heeded.remove(signal.SIGINT)
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as nursery:
            starting: trio.CancelScope = await nursery.start(ask_for_time, notify, _START_LIMIT)
            one = SignalRequests(notify, starting, terminal=terminal)
            nursery.start_soon(one.heed, signals, reload, nursery.cancel_scope)
            yield one
            nursery.cancel_scope.cancel()
