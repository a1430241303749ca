"""A lease seen from the gateway: against the real broker, and against one that dies or lies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fakes.lease_house import LeaseHouse, lease_house
from tests.fakes.workers import FakeProcess
from vllamad.errors import (
    DoesNotFit,
    LoadFailed,
    ModelNotFound,
    ServerBusy,
    Unavailable,
    VllamadError,
)
from vllamad.gateway.inference import leases
from vllamad.protocol.lease import (
    Done,
    Granted,
    LeaseReply,
    Refused,
    Revoked,
    Waiting,
    encode_message,
)
from vllamad.protocol.problem import Problem

GRANT = Granted(endpoint="/run/w/1/s", served_name="a", context_length=4096)
Script = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def supervisor(folder: Path, script: Script) -> AsyncGenerator[Path]:
    """A supervisor that has heard the question and then follows `script`; then it hangs up."""

    async def attend(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await script(stream)

    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(folder / "broker.sock"))
    sock.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, attend, [trio.SocketListener(sock)])
        yield folder / "broker.sock"
        nursery.cancel_scope.cancel()


def saying(*answers: LeaseReply | bytes) -> Script:
    async def script(stream: trio.SocketStream) -> None:
        for answer in answers:
            await stream.send_all(answer if isinstance(answer, bytes) else encode_message(answer))

    return script


def lease(
    one: LeaseHouse | Path, model: str = "a", keep_alive: float | None = None
) -> AbstractAsyncContextManager[leases.Lease]:
    path = one.path if isinstance(one, LeaseHouse) else one
    return leases.lease(path, model, keep_alive, "req-1")


async def test_a_lease_is_held_for_exactly_as_long_as_its_block(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        async with lease(one) as held:
            assert held.grant == GRANT
            assert one.leases == 1
        await one.until_leases(0)


async def test_a_request_that_is_cancelled_holds_nothing(tmp_path: Path) -> None:
    async with lease_house(tmp_path, FakeProcess(load=60)) as one:
        with trio.move_on_after(0.1):
            async with lease(one):
                raise AssertionError("it is loading for a minute")
        await one.until_leases(0)


@pytest.mark.parametrize(
    ("keep_alive", "expires"), [(None, 300), (20.0, 20), (0.0, 0), (inf, None)]
)
async def test_keep_alive_reaches_the_scheduler(
    tmp_path: Path, keep_alive: float | None, expires: float | None
) -> None:
    async with lease_house(tmp_path) as one, lease(one, keep_alive=keep_alive):
        (worker,) = await leases.running(one.path)
        if expires is None:
            assert worker.expires_in is None
        else:
            assert worker.expires_in == pytest.approx(expires, abs=5)


async def test_a_model_that_is_not_there_is_refused_as_such(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        with pytest.raises(ModelNotFound, match="model 'missing' not found") as caught:
            async with lease(one, "missing"):
                pass
        assert caught.value.hint == "pull it"


async def test_a_worker_that_dies_revokes_the_lease(tmp_path: Path) -> None:
    dying = FakeProcess(load=0, dies_after=0.1, why="CUDA error")
    async with lease_house(tmp_path, dying, FakeProcess()) as one, lease(one) as held:
        assert await held.revoked() == "CUDA error"


async def test_what_runs_can_be_asked_and_let_go(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        assert await leases.running(one.path) == []
        async with lease(one):
            (worker,) = await leases.running(one.path)
            assert (worker.model, worker.leases) == ("a", 1)
            await leases.unload(one.path, "a")
        with trio.fail_after(5):
            while await leases.running(one.path):  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)


@pytest.mark.parametrize("kind", [LoadFailed, DoesNotFit, ServerBusy, Unavailable])
async def test_a_refusal_keeps_its_kind(tmp_path: Path, kind: type[VllamadError]) -> None:
    error = kind("cannot load a: no room", hint="free some")
    refused = Refused(problem=Problem.of(error))
    async with supervisor(tmp_path, saying(Waiting(why="loading"), refused)) as path:
        with pytest.raises(kind, match="cannot load a: no room"):
            async with lease(path):
                pass


ASKING = [
    partial(leases.running),
    partial(leases.unload, model="a"),
    partial(leases.unload, model="a" * 60_000),
]


async def hold(path: Path) -> None:
    async with lease(path):
        raise AssertionError("it was never granted")


@pytest.mark.parametrize("ask", [*ASKING, hold])
async def test_without_a_supervisor_there_is_advice_to_try_again(
    tmp_path: Path, ask: Callable[[Path], Awaitable[object]]
) -> None:
    with pytest.raises(Unavailable, match="vllamad is not up") as caught:
        await ask(tmp_path / "nobody")
    assert "try again" in caught.value.hint


@pytest.mark.parametrize("ask", [*ASKING, hold])
@pytest.mark.parametrize(
    "said", [b"", encode_message(Done())[:-1], encode_message(Waiting(why="x"))[:5]]
)
async def test_a_supervisor_that_dies_is_going_down(
    tmp_path: Path, ask: Callable[[Path], Awaitable[object]], said: bytes
) -> None:
    async with supervisor(tmp_path, saying(said)) as path:
        with pytest.raises(Unavailable, match="vllamad is going down"):
            await ask(path)


async def test_a_supervisor_that_dies_revokes_every_lease(tmp_path: Path) -> None:
    async with supervisor(tmp_path, saying(GRANT)) as path, lease(path) as held:
        assert await held.revoked() == "vllamad is going down"


@pytest.mark.parametrize("said", [b"what?\n", b"{}\n", b"\xff\n"])
async def test_nonsense_from_the_supervisor_is_a_bug(tmp_path: Path, said: bytes) -> None:
    async with supervisor(tmp_path, saying(said)) as path:
        with pytest.raises(AssertionError, match="the supervisor said"):
            await hold(path)


async def test_a_second_grant_ends_the_lease(tmp_path: Path) -> None:
    async with supervisor(tmp_path, saying(GRANT, GRANT)) as path, lease(path) as held:
        assert await held.revoked() == "cannot read the supervisor's reply"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_answers_are_read_however_they_are_cut(tmp_path: Path, size: int) -> None:
    said = b"".join(map(encode_message, (Waiting(why="queued"), Waiting(why="loading"), GRANT)))
    said += encode_message(Revoked(reason="evicted"))

    async def script(stream: trio.SocketStream) -> None:
        for start in range(0, len(said), size):
            await stream.send_all(said[start : start + size])
            await trio.lowlevel.checkpoint()

    async with supervisor(tmp_path, script) as path, lease(path) as held:
        assert held.grant == GRANT
        assert await held.revoked() == "evicted"


async def test_a_wait_for_the_end_can_be_given_up_and_taken_up_again(tmp_path: Path) -> None:
    half, go_on = trio.Event(), trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        said = encode_message(Revoked(reason="evicted"))
        await stream.send_all(encode_message(GRANT) + said[:9])
        half.set()
        await go_on.wait()
        await stream.send_all(said[9:])

    async with supervisor(tmp_path, script) as path, lease(path) as held:
        await half.wait()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(held.revoked)
                await wait_all_tasks_blocked()
                scope.cancel()
        go_on.set()
        assert await held.revoked() == "evicted"
