"""Runs at most one pull for each model; all requests for it follow the same pull.

A pull is cancelled shortly after its last listener has left, unless one of them detached it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from vllamad.core.model_name import ModelName
from vllamad.errors import HostProblem, VllamadError
from vllamad.host.log import event, named
from vllamad.host.log_events import LogEvent
from vllamad.protocol.control import Progress

log = logging.getLogger(__name__)

GRACE = 5.0  # seconds a pull without listeners goes on

Report = Callable[[Progress], Awaitable[None]]
Fetch = Callable[[ModelName, Report], Awaitable[None]]


class PullJobs:
    """All pulls of one daemon; `fetch` carries out one, in its own process."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._running: dict[str, _Pull] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run pulls until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def attend(self, name: ModelName, report: Report, *, detach: bool = False) -> None:
        """Pull a model, or join its running pull; `report` receives every step.

        Raises the error that ended it. With `detach` it goes on without listeners.
        """
        assert self._nursery is not None, "pulls are attended only while they run"
        while (pull := self._running.get(name.key())) and pull.scope.cancel_called:
            await pull.gone.wait()  # it is being cancelled
        if pull is None:
            pull = self._running[name.key()] = _Pull()
            self._nursery.start_soon(self._carry_out, name, pull)
        pull.detached = pull.detached or detach
        pull.listeners += 1
        try:
            await pull.follow(report)
        finally:
            pull.listeners -= 1
            if not pull.listeners and not pull.detached and not pull.gone.is_set():
                self._nursery.start_soon(self._abandon, name, pull)

    async def _carry_out(self, name: ModelName, pull: _Pull) -> None:
        model = name.display()
        event(log, logging.INFO, "pull started", LogEvent.PULL_STARTED, model=model)
        try:
            with pull.scope:
                await self._fetch(name, pull.record)
        except VllamadError as error:
            pull.problem = error
        except Exception as error:
            log.exception(
                "internal error in a pull", extra=named(LogEvent.INTERNAL_ERROR, model=model)
            )
            pull.problem = HostProblem(f"cannot pull {model}: internal error: {error!r}")
        del self._running[name.key()]
        pull.end()
        reason = pull.problem.message if pull.problem else None
        reason = "abandoned by all clients" if pull.scope.cancelled_caught else reason
        event(
            log,
            logging.WARNING if reason else logging.INFO,
            "pull ended",
            LogEvent.PULL_ENDED,
            model=model,
            reason=reason,
        )

    async def _abandon(self, name: ModelName, pull: _Pull) -> None:
        await trio.sleep(GRACE)
        if not pull.listeners and not pull.detached:
            pull.scope.cancel()


class _Pull:
    """The progress of one pull: the latest state of each file and of each other step."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.listeners = 0
        self.detached = False
        self.gone = trio.Event()
        self.problem: VllamadError | None = None
        self._steps: dict[str, tuple[int, Progress]] = {}
        self._count = 0
        self._news = trio.Event()

    async def record(self, step: Progress) -> None:
        self._count += 1
        self._steps[step.digest or step.status] = self._count, step
        self._wake()

    def end(self) -> None:
        self.gone.set()
        self._wake()

    async def follow(self, report: Report) -> None:
        """Replay past progress, then follow; slow listeners get only the latest state of a file."""
        seen = 0
        while True:
            news, over = self._news, self.gone.is_set()
            fresh = sorted(
                (step for step in self._steps.values() if step[0] > seen), key=lambda step: step[0]
            )
            for number, step in fresh:
                await report(step)
                seen = number
            if over and not fresh:
                break
            if not fresh:
                await news.wait()
        if self.problem is not None:
            raise self.problem

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
