"""The line for `systemctl status`: its text, and when a changed one is sent.

How a line is sent is in `host/systemd/notify.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

import trio

from vllamad.core.lifecycle import State
from vllamad.host.systemd.notify import Notifier
from vllamad.protocol.control import WorkerInfo

_INTERVAL = 1.0  # seconds between two checks
_NUMBERS = 5.0  # seconds before a line is sent again in which only numbers have changed
_MORE_TIME = 15.0  # seconds requested at a time
_REASON_LIMIT = 100


async def send_status(notify: Notifier, status_line: Callable[[], str]) -> None:
    """Send the status line when it changes: words within a second, numbers within five."""
    sent, at = "", -inf
    while True:
        text, now = status_line(), trio.current_time()
        if text != sent and (_words(text) != _words(sent) or now >= at + _NUMBERS):
            notify.status(text)
            sent, at = text, now
        await trio.sleep(_INTERVAL)


async def extend_timeout(
    notify: Notifier,
    limit: float,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Extend systemd's start or stop timeout until cancelled, at most for `limit` seconds."""
    with trio.move_on_after(limit) as scope:
        task_status.started(scope)
        while True:
            notify.extend_timeout(_MORE_TIME)
            await trio.sleep(_MORE_TIME / 3)


def serving(workers: list[WorkerInfo], *, waiting_for: str = "", problem: str = "") -> str:
    """The line while serving: workers in transition first, then the counts of ready ones."""
    ready = [worker for worker in workers if worker.state == State.READY]
    requests = sum(worker.leases for worker in ready)
    parts = [f"waiting for the NVIDIA driver: {waiting_for}"] if waiting_for else []
    parts += [_worker_text(worker) for worker in workers if worker.state != State.READY]
    parts += [f"serving: {_count(len(ready), 'model')}, {_count(requests, 'request')}"]
    parts += [f"the changed configuration is not in force: {problem[:_REASON_LIMIT]}"] * bool(
        problem
    )
    return "; ".join(parts)


def stopping(workers: list[WorkerInfo], since: float) -> str:
    """The line while stopping, `since` seconds after the request: what is left."""
    requests = sum(worker.leases for worker in workers)
    left = _count(requests, "request") if requests else _count(len(workers), "worker")
    return f"stopping: {left} left, {since:.0f} s"


def _worker_text(worker: WorkerInfo) -> str:
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _words(text: str) -> str:
    return re.sub(r"\d+", "#", text)
