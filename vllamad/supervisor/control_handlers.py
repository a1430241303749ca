"""What each route of the control socket does.

Which route calls which handler, and who may call it, is in `supervisor/control_routes.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import trio

from vllamad import __version__
from vllamad.config.settings import Settings
from vllamad.config.show import settings_as_json
from vllamad.core.launch import Spec
from vllamad.core.lifecycle import State
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, VllamadError
from vllamad.host.log_files import follow, last_lines
from vllamad.http.control_server import ControlResponse, Send, StreamResponse
from vllamad.protocol.control import (
    CopyOrder,
    CreateOrder,
    Models,
    PruneOrder,
    PullOrder,
    RuntimeInfo,
    Status,
    VerifyOrder,
    Version,
    Workers,
    encode_body,
)
from vllamad.supervisor.models import maintenance
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.models.model_changes import ModelChanges
from vllamad.supervisor.progress_responses import Attempt, reload_progress, reported, ticking
from vllamad.supervisor.workers.manager import WorkerManager


@dataclass(slots=True, kw_only=True)
class Daemon:
    """What the control socket may look at and give orders to."""

    settings: Settings  # those in force
    listen: list[str]
    reload: Callable[[], Attempt]
    fleet: WorkerManager
    library: Library
    orders: ModelChanges
    started: float  # seconds since the epoch
    now: Callable[[], float]
    pid: int
    uid: int
    gateways: Callable[[], int]
    runtime: Callable[[], Awaitable[RuntimeInfo]]
    waiting_for: Callable[[], str]  # what is missing of the GPU's driver


class NoOrder(msgspec.Struct, frozen=True):
    """The order of a route that takes none: its body is not read."""


Order = TypeVar("Order", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Order]):
    """One call of a route: the `{name}` of its path, its query, its decoded body."""

    name: str
    query: dict[str, str]
    order: Order


async def version(_: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return _json(Version(version=__version__))


async def status(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    try:
        runtime, message = await daemon.runtime(), ""
    except VllamadError as error:
        runtime, message = None, f"{error.message}; {error.hint}".rstrip("; ")
    return _json(
        Status(
            version=__version__,
            pid=daemon.pid,
            uptime=daemon.now() - daemon.started,
            listen=daemon.listen,
            gateways=daemon.gateways(),
            runtime=runtime,
            workers=daemon.fleet.workers(),
            installed=len(await daemon.library.models()),
            queued=daemon.fleet.queued,
            message=message,
        )
    )


async def models(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return _json(Models(models=await daemon.library.models()))


async def model(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return _json(await daemon.library.detail(call.name, tensors="tensors" in call.query))


async def workers(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return _json(Workers(workers=daemon.fleet.workers()))


async def config(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return ControlResponse(body=msgspec.json.encode(settings_as_json(daemon.settings)))


async def reload(daemon: Daemon, call: Call[NoOrder]) -> StreamResponse:
    return StreamResponse(produce=partial(reload_progress, daemon.reload()))


async def load(daemon: Daemon, call: Call[NoOrder]) -> StreamResponse:
    """Load and keep: an operator's load stays until it is unloaded, or evicted for another."""
    model = (await daemon.library.find(call.name)).worker_name

    async def work() -> str:
        spec = await daemon.library.spec(call.name)
        await _forget_failure(daemon, spec)
        await daemon.fleet.load(spec)
        return "ready"

    return ticking(work, partial(_load_status, daemon, model))


async def restart(daemon: Daemon, call: Call[NoOrder]) -> StreamResponse:
    model = (await daemon.library.find(call.name)).worker_name

    async def work() -> str:
        spec = await daemon.library.spec(call.name)
        await daemon.fleet.stop(model, "restart")
        await daemon.fleet.load(spec)
        return "ready"

    return ticking(work, partial(_load_status, daemon, model))


async def unload(daemon: Daemon, call: Call[NoOrder]) -> StreamResponse:
    model = (await daemon.library.find(call.name)).worker_name

    async def work() -> str:
        was_loaded = await daemon.fleet.stop(model, "unload")
        return "unloaded" if was_loaded else "was not loaded"

    return ticking(work, partial(_load_status, daemon, model))


async def pull(daemon: Daemon, call: Call[PullOrder]) -> StreamResponse:
    attend = daemon.library.pulls.attend
    return reported(partial(attend, parse_model_name(call.order.model), detach=call.order.detach))


async def create(daemon: Daemon, call: Call[CreateOrder]) -> StreamResponse:
    order, orders = call.order, daemon.orders
    if order.files:
        return reported(partial(orders.assemble, call.name, order.files, order.overlay))
    return reported(partial(orders.create, call.name, order.base, order.overlay))


async def verify(daemon: Daemon, call: Call[VerifyOrder]) -> StreamResponse:
    folder = daemon.settings.paths.models
    return reported(partial(maintenance.verify, folder, call.order.model))


async def prune(daemon: Daemon, call: Call[PruneOrder]) -> StreamResponse:
    folder = daemon.settings.paths.models
    return reported(partial(maintenance.prune, folder, dry_run=call.order.dry_run))


async def copy(daemon: Daemon, call: Call[CopyOrder]) -> StreamResponse:
    async def work() -> str:
        await daemon.orders.copy(call.name, call.order.destination)
        return "copied"

    return ticking(work, lambda: "copying")


async def delete(daemon: Daemon, call: Call[NoOrder]) -> StreamResponse:
    async def work() -> str:
        await daemon.orders.delete(call.name)
        return "removed"

    return ticking(work, lambda: "deleting")


async def logs(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse | StreamResponse:
    path = await daemon.library.log_file(call.name)
    lines = _line_count(call.query.get("lines", "100"))
    if call.query.get("follow") == "1":
        return StreamResponse(
            produce=partial(_follow, path, lines), content_type="text/plain; charset=utf-8"
        )
    text = await trio.to_thread.run_sync(last_lines, path, lines)
    return ControlResponse(body=text, content_type="text/plain; charset=utf-8")


def _load_status(daemon: Daemon, model: str) -> str:
    """What the worker of `model` is busy with, in a few words."""
    worker = daemon.fleet.worker(model)
    if worker is None or worker.state is State.STOPPED:
        missing = daemon.waiting_for()
        return f"waiting for the NVIDIA driver: {missing}" if missing else "waiting"
    return worker.load_phase or worker.state


async def _forget_failure(daemon: Daemon, spec: Spec) -> None:
    worker = daemon.fleet.worker(spec.model)
    if worker is not None and worker.gone.is_set():
        await daemon.fleet.stop(spec.model, "another try")


async def _follow(path: Path, lines: int, send: Send) -> None:
    async with aclosing(follow(path, lines)) as pieces:
        async for piece in pieces:
            await send(piece)


def _json(value: msgspec.Struct) -> ControlResponse:
    return ControlResponse(body=encode_body(value))


def _line_count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:9]) <= 100_000:
        raise BadInput(f"lines: {text[:20]!r} is not a number from 1 to 100000")
    return int(text)
