"""The lease conversation: a gateway may ask, vanish or talk nonsense; only its own lease ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from tests.fakes.lease_house import lease_house, spec_of
from tests.fakes.workers import FakeLauncher, FakeProcess, managed_workers
from vllamad.core.launch import Spec
from vllamad.errors import ModelNotFound
from vllamad.protocol.lease import (
    LINE_LIMIT,
    Acquire,
    Done,
    Granted,
    ListRunning,
    Refused,
    Revoked,
    Running,
    Unload,
    Waiting,
    encode,
)
from vllamad.protocol.problem import Problem
from vllamad.supervisor.workers.lease_server import LeaseServer, listen
from vllamad.supervisor.workers.manager import Verdict, Verdicts, WorkerManager


async def test_a_lease_lasts_as_long_as_its_connection(tmp_path: Path) -> None:
    async with lease_house(tmp_path, FakeProcess(load=0.05)) as one:
        async with one.gateway() as gateway:
            assert await gateway.ask(Acquire(model="a")) == Waiting(why="loading")
            assert await gateway.hear() == Granted(
                endpoint="/run/w/1/s", served_name="a", context_length=4096
            )
            assert one.leases == 1
        await one.until_leases(0)


async def test_whoever_leaves_while_waiting_holds_nothing(tmp_path: Path) -> None:
    async with lease_house(tmp_path, FakeProcess(load=60)) as one:
        async with one.gateway() as gateway:
            assert isinstance(await gateway.ask(Acquire(model="a")), Waiting)
            assert one.fleet.queued == 1
        await one.until_leases(0)


@pytest.mark.integration
async def test_a_holder_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        code += f"s.sendall({encode(Acquire(model='a'))!r}); sys.stdin.read()"
        holder = await trio.lowlevel.open_process(
            [sys.executable, "-c", code, str(one.path)], stdin=subprocess.PIPE
        )
        await one.until_leases(1)
        os.kill(holder.pid, signal.SIGKILL)
        await holder.wait()
        assert holder.stdin is not None
        await holder.stdin.aclose()
        await one.until_leases(0)


async def test_the_death_of_the_worker_revokes_the_lease_and_ends_the_conversation(
    tmp_path: Path,
) -> None:
    dying = FakeProcess(load=0, dies_after=0.1, why="CUDA error")
    async with lease_house(tmp_path, dying, FakeProcess()) as one, one.gateway() as gateway:
        await gateway.granted("a")
        assert await gateway.hear() == Revoked(reason="CUDA error")
        assert await gateway.hear() is None


async def test_an_unknown_model_is_refused_with_its_kind_and_hint(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as gateway:
        error = ModelNotFound("model 'missing' not found", hint="pull it")
        refused = await gateway.ask(Acquire(model="missing"))
        assert refused == Refused(problem=Problem.of(error))
        assert await gateway.hear() is None


@pytest.mark.parametrize(
    ("keep_alive", "expires"), [(None, 300), (20, 20), (-1, None)], ids=["own", "given", "for ever"]
)
async def test_keep_alive_is_the_clients_else_the_models_and_negative_is_for_ever(
    tmp_path: Path, keep_alive: float | None, expires: float | None
) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as gateway:
        await gateway.granted("a", keep_alive)
        expires_in = one.fleet.workers()[0].expires_in
        assert expires_in == (expires and pytest.approx(expires, abs=5))


async def test_a_gateway_may_ask_what_runs(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as first, one.gateway() as second:
        await first.granted("a")
        answer = await second.ask(ListRunning())
        assert isinstance(answer, Running)
        assert [(worker.model, worker.leases) for worker in answer.models] == [("a", 1)]


async def test_an_unload_is_answered_at_once_and_done_when_nobody_uses_it(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        async with one.gateway() as holder, one.gateway() as other:
            await holder.granted("a")
            assert await other.ask(Unload(model="a")) == Done()
            assert one.leases == 1
        with trio.fail_after(5):
            while one.fleet.workers():  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)


async def test_unloading_what_is_not_loaded_is_done_too(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as gateway:
        assert await gateway.ask(Unload(model="a")) == Done()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"{}\n",
        b'{"type":"acquire"}\n',
        b'{"type":"acquire","model":1}\n',
        b"\xff\xfe\n",
        b'{"type":"acquire","model":"' + b"a" * LINE_LIMIT,
        encode(Acquire(model="bug")),
    ],
)
async def test_nonsense_and_bugs_end_one_conversation_and_nothing_else(
    tmp_path: Path, said: bytes
) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as holder, one.gateway() as fool:
        await holder.granted("a")
        await fool.stream.send_all(said)
        try:
            assert await fool.hear() is None
        except trio.BrokenResourceError:
            pass  # closed with what it said still unread
        assert one.leases == 1
        async with one.gateway() as third:
            assert isinstance(await third.ask(ListRunning()), Running)


async def test_whoever_talks_while_it_holds_a_lease_loses_it(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one, one.gateway() as gateway:
        await gateway.granted("a")
        await gateway.stream.send_all(b"more\n")
        await one.until_leases(0)


async def test_a_gateway_that_leaves_without_a_word_is_let_go(tmp_path: Path) -> None:
    async with lease_house(tmp_path) as one:
        async with one.gateway() as gateway:
            await gateway.stream.send_all(b'{"type":')
        async with one.gateway() as gateway:
            assert isinstance(await gateway.ask(ListRunning()), Running)


async def test_a_silent_gateway_is_let_go_after_half_a_minute(autojump_clock: MockClock) -> None:
    async with managed_workers(FakeLauncher()) as fleet:
        ours, theirs = memory_stream_pair()
        began = trio.current_time()
        await LeaseServer(fleet, spec_of).attend(cast("trio.SocketStream", ours))
        assert trio.current_time() - began == 30
        assert await theirs.receive_some() == b""


async def test_a_gateway_that_does_not_read_loses_its_lease(autojump_clock: MockClock) -> None:
    async with (
        managed_workers(FakeLauncher([FakeProcess(load=0)])) as fleet,
        trio.open_nursery() as nursery,
    ):
        ours, theirs = lockstep_stream_pair()
        nursery.start_soon(LeaseServer(fleet, spec_of).attend, cast("trio.SocketStream", ours))
        await theirs.send_all(encode(Acquire(model="a")))
        await trio.sleep(29)
        assert fleet.queued + sum(worker.leases for worker in fleet.workers()) == 1
        await trio.sleep(2)
        await wait_all_tasks_blocked()
        assert fleet.queued + sum(worker.leases for worker in fleet.workers()) == 0


class Granting(WorkerManager):
    """Grants every lease at once."""

    def __init__(self) -> None:
        self.leases = 0

    @asynccontextmanager
    async def lease(self, spec: Spec, keep_alive: float | None) -> AsyncGenerator[Verdicts]:
        send, receive = trio.open_memory_channel[Verdict](1)
        send.send_nowait(Granted(endpoint="s", served_name="a", context_length=2048))
        self.leases += 1
        yield receive
        self.leases -= 1


async def test_a_gateway_that_is_gone_when_its_lease_is_granted_ends_nothing_else() -> None:
    fleet = Granting()
    broker = LeaseServer(fleet, spec_of)
    for _ in range(20):  # which of both is noticed first, the end or the grant, is up to chance
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(encode(Acquire(model="a")))
        await broker.attend(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    assert fleet.leases == 0


async def test_the_socket_is_ours_alone_and_replaces_a_dead_daemons(tmp_path: Path) -> None:
    for _ in range(2):
        listener = listen(tmp_path / "broker.sock")
        assert stat.S_IMODE((tmp_path / "broker.sock").stat().st_mode) == 0o600
        await listener.aclose()
