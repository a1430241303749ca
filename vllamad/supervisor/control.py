"""The routes of the control socket, each with what it answers.

The shapes are in `protocol/control.py`, HTTP itself in `http/control_server.py`. The kernel names
the peer of a connection; whether it may is checked here for every request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from vllamad import __version__
from vllamad.config.settings import Settings
from vllamad.config.show import settings_as_json
from vllamad.core.launch import Spec
from vllamad.core.lifecycle import State
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, NotAllowed, VllamadError
from vllamad.host.control_socket import gid_of, may_control
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.log_files import follow, last_lines
from vllamad.http.control_server import ControlRequest, ControlResponse, Send, StreamResponse
from vllamad.protocol.control import (
    CopyOrder,
    CreateOrder,
    Models,
    Problem,
    Progress,
    PruneOrder,
    PullOrder,
    Reloaded,
    RuntimeInfo,
    Status,
    VerifyOrder,
    Version,
    Workers,
    encode,
    encode_line,
)
from vllamad.supervisor.models import maintenance
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.models.model_changes import ModelChanges, Report
from vllamad.supervisor.workers.manager import WorkerManager

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two lines of progress


class Attempt:
    """A reload on its way. Both events come, whatever becomes of it."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.over = trio.Event()
        self.outcome = Reloaded()
        self.error: VllamadError | None = None


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


class Control:
    """Answers requests on the control socket."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def handle(self, request: ControlRequest) -> ControlResponse | StreamResponse:
        """One request. Raises VllamadError for a refusal."""
        daemon = self._daemon
        group = gid_of(daemon.settings.control.group)
        if not may_control(request.peer, own_uid=daemon.uid, group_gid=group):
            raise NotAllowed(
                f"uid {request.peer.uid} may not control vllamad",
                hint=f"become root, or join the group {daemon.settings.control.group}",
            )
        if request.method == "POST":
            event(
                log,
                logging.INFO,
                "control request",
                LogEvent.CONTROL_REQUEST,
                path="/".join(request.path),
                uid=request.peer.uid,
                peer=request.peer.pid,
            )
        return await self._route(request)

    async def _route(self, request: ControlRequest) -> ControlResponse | StreamResponse:
        match (request.method, *request.path):
            case ("GET", "v1", "version"):
                return _json(Version(version=__version__))
            case ("GET", "v1", "status"):
                return _json(await self._status())
            case ("GET", "v1", "models"):
                return _json(Models(models=await self._daemon.library.models()))
            case ("GET", "v1", "models", name):
                return _json(
                    await self._daemon.library.detail(name, tensors="tensors" in request.query)
                )
            case ("GET", "v1", "workers"):
                return _json(Workers(workers=self._daemon.fleet.workers()))
            case ("GET", "v1", "config"):
                return ControlResponse(
                    body=msgspec.json.encode(settings_as_json(self._daemon.settings))
                )
            case ("GET", "v1", "models", name, "logs"):
                return await self._logs(name, request.query)
            case ("POST", "v1", "reload"):
                return StreamResponse(produce=partial(_reload, self._daemon.reload()))
            case ("POST", "v1", "models", "pull"):
                return self._pull(_order(request.body, PullOrder))
            case ("POST", "v1", "models", "verify"):
                return self._verify(_order(request.body, VerifyOrder))
            case ("POST", "v1", "models", "prune"):
                return self._prune(_order(request.body, PruneOrder))
            case ("POST", "v1", "models", name, "load"):
                return await self._load(name)
            case ("POST", "v1", "models", name, "unload"):
                return await self._unload(name)
            case ("POST", "v1", "models", name, "restart"):
                return await self._restart(name)
            case ("POST", "v1", "models", name, "copy"):
                return self._copy(name, _order(request.body, CopyOrder))
            case ("POST", "v1", "models", name, "create"):
                return self._create(name, _order(request.body, CreateOrder))
            case ("POST", "v1", "models", name, "delete"):
                return self._delete(name)
            case _:
                path = "/" + "/".join(request.path)
                raise BadInput(f"no such route: {request.method} {path}", status=404)

    async def _status(self) -> Status:
        daemon = self._daemon
        try:
            runtime, message = await daemon.runtime(), ""
        except VllamadError as error:
            runtime, message = None, f"{error.message}; {error.hint}".rstrip("; ")
        return Status(
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

    async def _load(self, name: str) -> StreamResponse:
        """Load and keep: an operator's load stays until it is unloaded, or evicted for another."""
        model = (await self._daemon.library.find(name)).worker_name

        async def load() -> str:
            spec = await self._daemon.library.spec(name)
            await self._forget_failure(spec)
            return await self._loaded(spec)

        return _long(load, partial(self._load_phase, model))

    async def _restart(self, name: str) -> StreamResponse:
        model = (await self._daemon.library.find(name)).worker_name

        async def again() -> str:
            spec = await self._daemon.library.spec(name)
            await self._daemon.fleet.stop(model, "restart")
            return await self._loaded(spec)

        return _long(again, partial(self._load_phase, model))

    async def _unload(self, name: str) -> StreamResponse:
        model = (await self._daemon.library.find(name)).worker_name

        async def stop() -> str:
            was = await self._daemon.fleet.stop(model, "unload")
            return "unloaded" if was else "was not loaded"

        return _long(stop, partial(self._load_phase, model))

    async def _forget_failure(self, spec: Spec) -> None:
        worker = self._daemon.fleet.worker(spec.model)
        if worker is not None and worker.gone.is_set():
            await self._daemon.fleet.stop(spec.model, "another try")

    def _load_phase(self, model: str) -> str:
        """What its worker is busy with, in a few words."""
        worker = self._daemon.fleet.worker(model)
        if worker is None or worker.state is State.STOPPED:
            missing = self._daemon.waiting_for()
            return f"waiting for the NVIDIA driver: {missing}" if missing else "waiting"
        return worker.load_phase or worker.state

    async def _loaded(self, spec: Spec) -> str:
        await self._daemon.fleet.load(spec)
        return "ready"

    def _pull(self, order: PullOrder) -> StreamResponse:
        name = parse_model_name(order.model)
        attend = self._daemon.library.pulls.attend
        return _reported(partial(attend, name, detach=order.detach))

    def _create(self, model: str, order: CreateOrder) -> StreamResponse:
        orders = self._daemon.orders
        if order.files:
            return _reported(partial(orders.assemble, model, order.files, order.overlay))
        return _reported(partial(orders.create, model, order.base, order.overlay))

    def _verify(self, order: VerifyOrder) -> StreamResponse:
        models = self._daemon.settings.paths.models
        return _reported(partial(maintenance.verify, models, order.model))

    def _prune(self, order: PruneOrder) -> StreamResponse:
        models = self._daemon.settings.paths.models
        return _reported(partial(maintenance.prune, models, dry_run=order.dry_run))

    def _copy(self, source: str, order: CopyOrder) -> StreamResponse:
        async def copy() -> str:
            await self._daemon.orders.copy(source, order.destination)
            return "copied"

        return _long(copy, lambda: "copying")

    def _delete(self, model: str) -> StreamResponse:
        async def delete() -> str:
            await self._daemon.orders.delete(model)
            return "removed"

        return _long(delete, lambda: "deleting")

    async def _logs(self, name: str, query: dict[str, str]) -> ControlResponse | StreamResponse:
        path = await self._daemon.library.log_file(name)
        lines = _count(query.get("lines", "100"))
        if query.get("follow") == "1":
            return StreamResponse(
                produce=partial(_follow, path, lines), content_type="text/plain; charset=utf-8"
            )
        text = await trio.to_thread.run_sync(last_lines, path, lines)
        return ControlResponse(body=text, content_type="text/plain; charset=utf-8")


async def _reload(attempt: Attempt, send: Send) -> None:
    """Say what was decided, and then when it counts. It goes on without whoever asked, too."""
    await attempt.decided.wait()
    if attempt.error is None:
        await send(encode_line(Progress(status="accepted", reloaded=attempt.outcome)))
    await attempt.over.wait()
    if attempt.error is not None:
        await send(encode_line(_failed(attempt.error)))
    else:
        await send(encode_line(Progress(status="done", done=True, reloaded=attempt.outcome)))


T = TypeVar("T", bound=msgspec.Struct)


def _order(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the order: {error}") from error


def _reported(work: Callable[[Report], Awaitable[None]]) -> StreamResponse:
    """Answer with each step that `work` reports, and with why it went no further."""

    async def produce(send: Send) -> None:
        try:
            await work(lambda progress: send(encode_line(progress)))
        except VllamadError as error:
            await send(encode_line(_failed(error)))

    return StreamResponse(produce=produce)


async def _follow(path: Path, lines: int, send: Send) -> None:
    async with aclosing(follow(path, lines)) as pieces:
        async for piece in pieces:
            await send(piece)


def _json(value: msgspec.Struct) -> ControlResponse:
    return ControlResponse(body=encode(value))


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:9]) <= 100_000:
        raise BadInput(f"lines: {text[:20]!r} is not a number from 1 to 100000")
    return int(text)


def _failed(error: VllamadError) -> Progress:
    return Progress(
        error=Problem(kind=error.kind, message=error.message, hint=error.hint), done=True
    )


def _long(work: Callable[[], Awaitable[str]], status: Callable[[], str]) -> StreamResponse:
    """Answer with a line a second while `work` goes on, then with what it returned, or why not."""

    async def produce(send: Send) -> None:
        began = trio.current_time()

        async def tick() -> None:
            while True:
                elapsed = trio.current_time() - began
                await send(encode_line(Progress(status=status(), elapsed=elapsed)))
                await trio.sleep(_TICK)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                result = await work()
                nursery.cancel_scope.cancel()
            elapsed = trio.current_time() - began
            await send(encode_line(Progress(status=result, done=True, elapsed=elapsed)))
        except* VllamadError as group:
            await send(encode_line(_failed(_first(group))))

    return StreamResponse(produce=produce)


def _first(group: BaseExceptionGroup[VllamadError]) -> VllamadError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
