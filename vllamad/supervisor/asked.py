"""What the outside asks by signals: to stop, to stop at once, to reload."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from vllamad.host.log import event
from vllamad.host.systemd import Notifier
from vllamad.supervisor.report import ask_for_time

log = logging.getLogger(__name__)

_START_LIMIT = 600.0  # seconds for which the manager is asked for more time to start


class Asked:
    """What was asked so far."""

    def __init__(self, notify: Notifier, starting: trio.CancelScope) -> None:
        self.stop = trio.Event()
        self.stop_since = 0.0
        self._notify = notify
        self._starting = starting

    def ready(self) -> None:
        """We have started: tell the manager, and ask for no more time."""
        self._starting.cancel()
        self._notify.ready()

    async def heed(
        self,
        signals: AsyncIterator[int],
        reload: Callable[[], object],
        everything: trio.CancelScope,
    ) -> None:
        """Do as the signals say; a second one to stop means: now."""
        async for number in signals:
            if number == signal.SIGHUP:
                reload()
            elif not self.stop.is_set():
                self._notify.stopping()
                event(log, logging.INFO, "stopping")
                self.stop_since = trio.current_time()
                self.stop.set()
            else:
                event(log, logging.WARNING, "stopping at once")
                everything.cancel()


@asynccontextmanager
async def heeding(notify: Notifier, reload: Callable[[], object]) -> AsyncGenerator[Asked]:
    """Heed signals for as long as the block lasts; by default each would end us as we stand."""
    heeded = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as nursery:
            starting: trio.CancelScope = await nursery.start(ask_for_time, notify, _START_LIMIT)
            one = Asked(notify, starting)
            nursery.start_soon(one.heed, signals, reload, nursery.cancel_scope)
            yield one
            nursery.cancel_scope.cancel()
