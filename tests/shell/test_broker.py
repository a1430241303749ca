"""The broker outlives whatever a gateway does at the worst moment."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from vllamad.core.launch import Spec
from vllamad.core.memory import Need
from vllamad.supervisor.broker import Broker
from vllamad.supervisor.fleet import Fleet, Verdict, Verdicts
from vllamad.wire.broker import Acquire, Granted, encode


class Granting(Fleet):
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


async def spec_of(model: str) -> Spec:
    need = Need(weights=1, kv_per_token=0, context_length=2048)
    return Spec(model=model, folder=model, need=need)


async def test_a_gateway_that_is_gone_when_its_lease_is_granted_ends_nothing_else() -> None:
    fleet = Granting()
    broker = Broker(fleet, spec_of)
    for _ in range(20):  # which of both is noticed first, the end or the grant, is up to chance
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(encode(Acquire(model="a")))
        await broker.attend(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    assert fleet.leases == 0
