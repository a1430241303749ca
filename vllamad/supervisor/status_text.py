"""What is the daemon doing, in one line for `systemctl status`; and when is it worth saying?

It must not know how a line is sent; `host/systemd.py` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

import trio

from vllamad.core.lifecycle import State
from vllamad.host.systemd import Notifier
from vllamad.protocol.control import WorkerInfo

_GLANCE = 1.0  # seconds between two looks
_NUMBERS = 5.0  # seconds before a line is said again of which only numbers are others
_MORE_TIME = 15.0  # seconds asked for at once while something takes its time
_REASON_LIMIT = 100


async def tell(notify: Notifier, say: Callable[[], str]) -> None:
    """Say what goes on whenever it changes: words within a second, numbers within five."""
    said, at = "", -inf
    while True:
        text, now = say(), trio.current_time()
        if text != said and (_words(text) != _words(said) or now >= at + _NUMBERS):
            notify.status(text)
            said, at = text, now
        await trio.sleep(_GLANCE)


async def ask_for_time(
    notify: Notifier,
    limit: float,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Put off the manager's own limit on starting or stopping, until cancelled or for `limit` s."""
    with trio.move_on_after(limit) as scope:
        task_status.started(scope)
        while True:
            notify.extend_timeout(_MORE_TIME)
            await trio.sleep(_MORE_TIME / 3)


def serving(workers: list[WorkerInfo], *, waiting_for: str = "", problem: str = "") -> str:
    """While it serves: what is on its way or going, then what is there."""
    ready = [worker for worker in workers if worker.state == State.READY]
    requests = sum(worker.leases for worker in ready)
    parts = [f"waiting for the NVIDIA driver: {waiting_for}"] if waiting_for else []
    parts += [_one(worker) for worker in workers if worker.state != State.READY]
    parts += [f"serving: {_count(len(ready), 'model')}, {_count(requests, 'request')}"]
    parts += [f"the changed configuration is not in force: {problem[:_REASON_LIMIT]}"] * bool(
        problem
    )
    return "; ".join(parts)


def stopping(workers: list[WorkerInfo], since: float) -> str:
    """While it stops, for `since` seconds by now: what it still waits for."""
    requests = sum(worker.leases for worker in workers)
    left = _count(requests, "request") if requests else _count(len(workers), "worker")
    return f"stopping: {left} left, {since:.0f} s"


def _one(worker: WorkerInfo) -> str:
    model, since, why = worker.model, f"{worker.since:.0f} s", worker.reason[:_REASON_LIMIT]
    match worker.state:
        case State.STARTING:
            return f"loading {model}: {worker.load_phase or 'starting'}, {since}"
        case State.DRAINING:
            return f"draining {model}: {_count(worker.leases, 'request')}, {since}"
        case State.BACKOFF | State.FAILED:
            return f"{model} {worker.state}: {why}"
        case _:
            return f"{model} {worker.state}, {since}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _words(text: str) -> str:
    return re.sub(r"\d+", "#", text)
