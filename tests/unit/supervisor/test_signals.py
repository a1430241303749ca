"""What signals do: stop, stop at once, reload; and that none of them ends us as we stand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from vllamad.host.systemd.notify import Notifier
from vllamad.supervisor.signals import listen_for_signals


class Heard(Notifier):
    """What the service manager would hear, but for the requests for more time."""

    def __init__(self) -> None:
        super().__init__({})
        self.words: list[str] = []

    def _send(self, state: str) -> None:
        self.words.append(state.partition("=")[0])


def nothing() -> None:
    pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_to_stop_is_told_at_once(number: int) -> None:
    heard = Heard()
    with trio.fail_after(5):
        async with listen_for_signals(heard, nothing) as asked:
            os.kill(os.getpid(), number)
            await asked.stop.wait()
            assert asked.stop_since <= trio.current_time()
    assert heard.words[-1] == "STOPPING"


async def test_a_second_signal_to_stop_means_now() -> None:
    with trio.fail_after(5):
        async with listen_for_signals(Heard(), nothing) as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            await asked.stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()


async def test_a_hangup_asks_for_a_reload_and_stops_nothing() -> None:
    asked_for: list[None] = []
    reloading = trio.Event()

    def reload() -> None:
        asked_for.append(None)
        reloading.set()

    with trio.fail_after(5):
        async with listen_for_signals(Heard(), reload) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            await reloading.wait()
            assert not asked.stop.is_set()
    assert len(asked_for) == 1


async def test_the_end_of_the_terminal_is_ours() -> None:
    with trio.fail_after(5):
        async with listen_for_signals(Heard(), nothing, terminal=True) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            await asked.stop.wait()


async def test_more_time_is_asked_for_until_all_is_prepared(autojump_clock: MockClock) -> None:
    heard = Heard()
    async with listen_for_signals(heard, nothing) as asked:
        await trio.sleep(7)
        assert heard.words == ["EXTEND_TIMEOUT_USEC"] * 2
        asked.prepared()
        await trio.sleep(60)
    assert heard.words == ["EXTEND_TIMEOUT_USEC"] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_signals_are_as_before_afterwards(number: int) -> None:
    before: Callable[..., object] | int | None = signal.getsignal(number)
    async with listen_for_signals(Heard(), nothing):
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before


async def test_an_interrupt_that_was_ignored_when_we_began_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with trio.fail_after(5):
            async with listen_for_signals(Heard(), nothing) as asked:
                os.kill(os.getpid(), signal.SIGINT)
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert not asked.stop.is_set()
                os.kill(os.getpid(), signal.SIGTERM)
                await asked.stop.wait()
    finally:
        signal.signal(signal.SIGINT, before)
