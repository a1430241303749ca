"""What readiness and the watchdog are told, and that silence of a part is never called health."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from vllamad.host.systemd.notify import Notifier
from vllamad.supervisor import watchdog

Handler = Callable[[trio.SocketStream], Awaitable[None]]


class Heard(Notifier):
    """What the service manager would hear, with the time of each word."""

    def __init__(self) -> None:
        super().__init__({})
        self.words: list[tuple[float, str]] = []

    def _send(self, state: str) -> None:
        self.words.append((trio.current_time(), state))

    @property
    def pings(self) -> list[float]:
        return [at for at, word in self.words if word == "WATCHDOG=1"]


async def answering(stream: trio.SocketStream) -> None:
    try:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    except trio.BrokenResourceError:
        pass  # whoever asked has left


async def deaf(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def hanging_up(stream: trio.SocketStream) -> None:
    await stream.aclose()


@asynccontextmanager
async def part(path: Path, handler: Handler) -> AsyncGenerator[None]:
    """A socket of the daemon that behaves like `handler`."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handler, [trio.SocketListener(sock)])
        yield
        nursery.cancel_scope.cancel()


async def beat(heard: Heard, folder: Path, interval: float | None) -> None:
    broker, control = folder / "broker", folder / "control"
    await watchdog.beat(heard, interval, broker=broker, control=control)


async def pings_within(seconds: float, folder: Path, broker: Handler, control: Handler) -> int:
    heard = Heard()
    async with part(folder / "broker", broker), part(folder / "control", control):
        with trio.move_on_after(seconds):
            await beat(heard, folder, 0.03)
    return len(heard.pings)


async def test_the_watchdog_is_fed_while_every_part_answers(tmp_path: Path) -> None:
    assert await pings_within(0.5, tmp_path, answering, answering) >= 3


@pytest.mark.parametrize("ill", [deaf, hanging_up])
@pytest.mark.parametrize("broker_is_ill", [True, False])
async def test_a_part_that_does_not_answer_starves_the_watchdog(
    tmp_path: Path, ill: Handler, broker_is_ill: bool
) -> None:
    handlers = (ill, answering) if broker_is_ill else (answering, ill)
    assert await pings_within(0.3, tmp_path, *handlers) == 0


async def test_a_part_that_is_gone_starves_the_watchdog(tmp_path: Path) -> None:
    heard = Heard()
    async with part(tmp_path / "broker", answering):
        with trio.move_on_after(0.1):
            await beat(heard, tmp_path, 0.03)
    assert heard.pings == []


async def well() -> bool:
    return True


@pytest.mark.parametrize(("interval", "pause"), [(30.0, 10), (6.0, 2), (None, 10)])
async def test_three_pings_fit_into_the_interval(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    interval: float | None,
    pause: float,
) -> None:
    for name in ("broker_answers", "control_answers"):
        monkeypatch.setattr(watchdog, name, lambda _path: well())
    heard = Heard()
    with trio.move_on_after(pause * 3.5):
        await beat(heard, Path("/nowhere"), interval)
    began = heard.pings[0]
    assert [at - began for at in heard.pings] == [0, pause, 2 * pause, 3 * pause]


async def test_an_answer_is_waited_for_five_seconds(autojump_clock: MockClock) -> None:
    streams: list[object] = []

    async def connect() -> trio.SocketStream:
        ours, theirs = memory_stream_pair()
        streams.append(theirs)
        return ours  # type: ignore[return-value]

    began = trio.current_time()
    assert not await watchdog.answers(connect, b"well?")
    assert trio.current_time() - began == 5


async def test_serving_is_when_the_api_and_the_control_socket_answer(tmp_path: Path) -> None:
    over = trio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def wait() -> None:
            await watchdog.until_serving(listener, tmp_path / "control")
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            api = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
            async with part(tmp_path / "control", answering):
                await trio.sleep(0.1)
                assert not over.is_set(), "the API does not answer yet"
            (tmp_path / "control").unlink()
            nursery.start_soon(trio.serve_listeners, answering, [api])
            await trio.sleep(0.2)
            assert not over.is_set(), "the control socket does not answer any more"
            async with part(tmp_path / "control", answering):
                with trio.fail_after(5):
                    await over.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("0.0.0.0", 0)),
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::", 0)),
        (socket.AF_UNIX, "api"),
    ],
)
async def test_every_sort_of_listening_socket_can_be_asked(
    tmp_path: Path, family: int, address: tuple[str, int] | str
) -> None:
    listener = socket.socket(family)
    listener.bind(str(tmp_path / address) if isinstance(address, str) else address)
    listener.listen()
    with listener:
        async with await watchdog._connect(listener):
            pass


async def test_a_bug_in_the_owner_of_all_state_is_the_watchdogs() -> None:
    heard = Heard()

    async def own(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise AssertionError("a worker cannot go from ready to stopped")

    with pytest.raises(ExceptionGroup) as caught:
        await watchdog.guarded(heard, own)
    assert caught.group_contains(AssertionError)
    assert [word for _, word in heard.words] == ["WATCHDOG=trigger"]


async def test_an_owner_that_is_cancelled_is_well() -> None:
    heard = Heard()
    started: list[None] = []

    async def own(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        started.append(None)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(watchdog.guarded, heard, own)
        nursery.cancel_scope.cancel()
    assert started
    assert heard.words == []
