"""What `systemctl status` shows, and how often it is told."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from vllamad.host.systemd.notify import Notifier
from vllamad.protocol.control import WorkerInfo
from vllamad.supervisor.status_text import extend_timeout, send_status, serving, stopping


class Heard(Notifier):
    """What the service manager would hear, with the time of each word."""

    def __init__(self) -> None:
        super().__init__({})
        self.began = trio.current_time()
        self.words: list[tuple[float, str]] = []

    def _send(self, state: str) -> None:
        self.words.append((trio.current_time() - self.began, state))


def worker(model: str, state: str, **more: object) -> WorkerInfo:
    return WorkerInfo(model=model, state=state, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ([], "serving: 0 models, 0 requests"),
        ([worker("a", "ready", leases=1)], "serving: 1 model, 1 request"),
        (
            [worker("a", "ready", leases=2), worker("b", "ready", leases=3)],
            "serving: 2 models, 5 requests",
        ),
        (
            [worker("qwen3:8b", "starting", load_phase="capturing graphs", since=62.4)],
            "loading qwen3:8b: capturing graphs, 62 s; serving: 0 models, 0 requests",
        ),
        (
            [worker("a", "draining", leases=1, since=3), worker("b", "ready")],
            "draining a: 1 request, 3 s; serving: 1 model, 0 requests",
        ),
        (
            [worker("a", "failed", reason="no memory"), worker("b", "stopping", since=1)],
            "a failed: no memory; b stopping, 1 s; serving: 0 models, 0 requests",
        ),
    ],
)
def test_serving_says_what_is_there_and_what_is_on_its_way(
    workers: list[WorkerInfo], text: str
) -> None:
    assert serving(workers) == text


def test_serving_says_what_it_waits_for_and_what_is_not_in_force() -> None:
    text = serving([], waiting_for="/dev/nvidiactl is missing", problem="config.toml:3: x: y")
    assert text == (
        "waiting for the NVIDIA driver: /dev/nvidiactl is missing; "
        "serving: 0 models, 0 requests; "
        "the changed configuration is not in force: config.toml:3: x: y"
    )


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ([worker("a", "ready", leases=2)], "stopping: 2 requests left, 7 s"),
        ([worker("a", "stopping")], "stopping: 1 worker left, 7 s"),
        ([], "stopping: 0 workers left, 7 s"),
    ],
)
def test_stopping_says_what_is_left(workers: list[WorkerInfo], text: str) -> None:
    assert stopping(workers, 7.4) == text


async def test_words_are_told_at_once_and_numbers_now_and_then(autojump_clock: MockClock) -> None:
    heard = Heard()

    def say() -> str:
        seconds = trio.current_time() - heard.began
        return f"loading, {seconds:.0f} s" if seconds < 11.5 else "serving"

    with trio.move_on_after(30.5):
        await send_status(heard, say)
    assert heard.words == [
        (0, "STATUS=loading, 0 s"),
        (5, "STATUS=loading, 5 s"),
        (10, "STATUS=loading, 10 s"),
        (12, "STATUS=serving"),
    ]


async def test_time_is_asked_for_again_and_again_but_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    heard = Heard()
    await extend_timeout(heard, 12)
    assert heard.words == [(at, "EXTEND_TIMEOUT_USEC=15000000") for at in (0, 5, 10)]
    assert trio.current_time() - heard.began == 12


async def test_no_more_time_is_asked_for_once_it_is_not_needed(autojump_clock: MockClock) -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        scope: trio.CancelScope = await nursery.start(extend_timeout, heard, 100)
        scope.cancel()
    assert len(heard.words) <= 1
