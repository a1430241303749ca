"""A worker manager of fake engines behind a real lease socket, and its gateways."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.fakes.workers import FakeLauncher, FakeProcess, managed_workers, spec_named
from vllamad.core.launch import Spec
from vllamad.errors import ModelNotFound
from vllamad.protocol.lease import (
    Acquire,
    Granted,
    LeaseReply,
    LeaseRequest,
    Waiting,
    decode_lease_reply,
    encode_message,
)
from vllamad.supervisor.workers.lease_server import LeaseServer, listen
from vllamad.supervisor.workers.manager import WorkerManager


async def spec_of(model: str) -> Spec:
    if model == "missing":
        raise ModelNotFound("model 'missing' not found", hint="pull it")
    if model == "bug":
        raise ZeroDivisionError
    return spec_named(model)


class Gateway:
    """The other end of one conversation."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def ask(self, question: LeaseRequest) -> LeaseReply | None:
        await self.stream.send_all(encode_message(question))
        return await self.hear()

    async def hear(self) -> LeaseReply | None:
        """The next answer, None at the end of the conversation."""
        with trio.fail_after(5):
            while b"\n" not in self._data:
                piece = await self.stream.receive_some()
                if not piece:
                    return None
                self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return decode_lease_reply(line)

    async def granted(self, model: str, keep_alive: float | None = None) -> Granted:
        answer = await self.ask(Acquire(model=model, keep_alive=keep_alive))
        while isinstance(answer, Waiting):
            answer = await self.hear()
        assert isinstance(answer, Granted)
        return answer


class LeaseHouse:
    """A fleet of scripted engines and its broker on a real socket."""

    def __init__(self, fleet: WorkerManager, path: Path) -> None:
        self.fleet = fleet
        self.path = path

    @property
    def leases(self) -> int:
        return sum(worker.leases for worker in self.fleet.workers())

    async def until_leases(self, wanted: int) -> None:
        with trio.fail_after(5):
            while self.leases != wanted or self.fleet.queued:  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)

    @asynccontextmanager
    async def gateway(self) -> AsyncGenerator[Gateway]:
        async with await trio.open_unix_socket(self.path) as stream:
            yield Gateway(stream)


@asynccontextmanager
async def lease_house(folder: Path, *lives: FakeProcess) -> AsyncGenerator[LeaseHouse]:
    story = FakeLauncher([*lives] or [FakeProcess(load=0)])
    async with managed_workers(story) as fleet, trio.open_nursery() as nursery:
        listener = listen(folder / "broker.sock")
        nursery.start_soon(trio.serve_listeners, LeaseServer(fleet, spec_of).attend, [listener])
        yield LeaseHouse(fleet, folder / "broker.sock")
        nursery.cancel_scope.cancel()
