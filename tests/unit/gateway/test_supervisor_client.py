"""Orders on a real control socket: what comes back, what is refused, and who is gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import trio

from vllamad.errors import BadInput, ModelNotFound, ServerBusy, Unavailable
from vllamad.gateway import supervisor_client as module
from vllamad.gateway.supervisor_client import SupervisorClient
from vllamad.host.control_socket import bind_control
from vllamad.http.control_server import (
    ControlRequest,
    ControlResponse,
    Send,
    StreamResponse,
    serve_http,
)
from vllamad.protocol.control import CopyOrder, Progress, encode_line, model_path
from vllamad.protocol.problem import Problem

Produce = Callable[[Send], Awaitable[None]]
DONE = Progress(status="done", done=True)
GONE = Problem(kind="model-not-found", message="model 'x' not found")


@asynccontextmanager
async def supervisor(
    produce: Produce,
) -> AsyncGenerator[tuple[SupervisorClient, list[ControlRequest]]]:
    """A control socket that answers every order the same way."""
    asked: list[ControlRequest] = []

    async def handle(request: ControlRequest) -> ControlResponse | StreamResponse:
        asked.append(request)
        if request.path[-1] == "refused":
            raise ModelNotFound("model 'x' not found")
        return StreamResponse(produce=produce)

    with TemporaryDirectory(prefix="vo", dir="/tmp") as folder:
        path = Path(folder) / "c.sock"
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bind_control(path, "none")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_http, listener, handle)
            with trio.fail_after(20):
                yield SupervisorClient(path), asked
            nursery.cancel_scope.cancel()


def saying(*steps: Progress) -> Produce:
    async def produce(send: Send) -> None:
        for step in steps:
            await send(encode_line(step))

    return produce


async def test_an_order_is_followed_step_by_step() -> None:
    async with (
        supervisor(saying(Progress(status="one"), DONE)) as (orders, asked),
        orders.follow("/v1/models/a/copy", CopyOrder(destination="b")) as steps,
    ):
        assert [step.status async for step in steps] == ["one", "done"]
    assert (asked[0].method, asked[0].body) == ("POST", b'{"destination":"b"}')


async def test_a_name_with_a_slash_arrives_whole() -> None:
    async with supervisor(saying(DONE)) as (orders, asked):
        await orders.carry_out(model_path("hf.co/Qwen/Q?:x", "delete"))
    assert asked[0].path == ("v1", "models", "hf.co/Qwen/Q?:x", "delete")


async def test_a_refusal_comes_before_any_step() -> None:
    async with supervisor(saying(DONE)) as (orders, _):
        with pytest.raises(ModelNotFound, match="model 'x' not found"):
            await orders.carry_out("/v1/refused")


async def test_what_goes_wrong_later_is_raised_where_the_steps_are_read() -> None:
    failing = saying(Progress(status="one"), Progress(error=GONE, done=True))
    async with supervisor(failing) as (orders, _):
        with pytest.raises(ModelNotFound):
            await orders.carry_out("/v1/models/a/delete")


async def test_an_answer_without_an_end_is_no_success() -> None:
    async with supervisor(saying(Progress(status="one"))) as (orders, _):
        with pytest.raises(Unavailable, match="going down"):
            await orders.carry_out("/v1/models/a/delete")


async def test_without_a_supervisor_orders_are_refused() -> None:
    with pytest.raises(Unavailable):
        await SupervisorClient(Path("/nowhere")).carry_out("/v1/models/a/delete")


async def test_who_leaves_calls_the_order_off() -> None:
    called_off = trio.Event()

    async def produce(send: Send) -> None:
        await send(encode_line(Progress(status="one")))
        try:
            await trio.sleep_forever()
        finally:
            called_off.set()

    async with supervisor(produce) as (orders, _):
        async with orders.follow("/v1/models/pull") as steps:
            assert (await anext(steps)).status == "one"
        await called_off.wait()


async def test_orders_leave_room_for_others_on_the_control_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    async with supervisor(saying(DONE)) as (orders, _):
        async with orders.follow("/v1/models/a/delete"):
            with pytest.raises(ServerBusy):
                await orders.carry_out("/v1/models/b/delete")
        await orders.carry_out("/v1/models/b/delete")


async def test_an_order_larger_than_the_supervisor_reads_is_refused_here() -> None:
    class Large(msgspec.Struct):
        text: str = "x" * 2_000_000

    async with supervisor(saying(DONE)) as (orders, asked):
        with pytest.raises(BadInput) as raised:
            await orders.carry_out("/v1/models/a/create", Large())
    assert raised.value.status == 413
    assert asked == []
