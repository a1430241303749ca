"""The control socket: its route table, and who may call which route.

The shapes are in `protocol/control.py`, HTTP itself in `http/control_server.py`, what a route does
in `supervisor/control_handlers.py`. The kernel names the peer of a connection; whether it has
access is checked here for every request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic

import msgspec

from vllamad.errors import BadInput, NotAllowed
from vllamad.host.control_socket import Peer, gid_of, may_control
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.http.control_server import ControlRequest, ControlResponse, StreamResponse
from vllamad.protocol.control import CopyOrder, CreateOrder, PruneOrder, PullOrder, VerifyOrder
from vllamad.supervisor import control_handlers as handlers
from vllamad.supervisor.control_handlers import Call, Daemon, NoOrder, Order

log = logging.getLogger(__name__)


class ControlAccess(Enum):
    """What a route takes of its caller.

    Both are given to root, to the daemon's own user and to the members of the socket's group; every
    call of an ADMIN route is logged with its peer.
    """

    READ = "read"
    ADMIN = "admin"


Handler = Callable[[Daemon, Call[Order]], Awaitable[ControlResponse | StreamResponse]]


@dataclass(frozen=True, slots=True)
class ControlRoute(Generic[Order]):
    """One method of one path. A route that is written without `access` is ADMIN."""

    method: str
    pattern: str  # `{name}` stands for one segment
    handler: Handler[Order]
    body: type[Order]
    access: ControlAccess = ControlAccess.ADMIN

    def name_in(self, request: ControlRequest) -> str | None:
        """The `{name}` in the path of a request, empty without one; None for another route's."""
        segments = tuple(self.pattern[1:].split("/"))
        if request.method != self.method or len(request.path) != len(segments):
            return None
        pairs = list(zip(segments, request.path, strict=True))
        if any(segment not in ("{name}", given) for segment, given in pairs):
            return None
        return next((given for segment, given in pairs if segment == "{name}"), "")

    async def serve(
        self, daemon: Daemon, request: ControlRequest, name: str
    ) -> ControlResponse | StreamResponse:
        """Decode the order and hand it to the handler. Raises BadInput for one of another form."""
        call = Call(name=name, query=request.query, order=_decode(request.body, self.body))
        return await self.handler(daemon, call)


AnyRoute = (
    ControlRoute[NoOrder]
    | ControlRoute[PullOrder]
    | ControlRoute[VerifyOrder]
    | ControlRoute[PruneOrder]
    | ControlRoute[CopyOrder]
    | ControlRoute[CreateOrder]
)

_READ: Final = ControlAccess.READ

ROUTES: Final[tuple[AnyRoute, ...]] = (
    ControlRoute("GET", "/v1/version", handlers.version, NoOrder, _READ),
    ControlRoute("GET", "/v1/status", handlers.status, NoOrder, _READ),
    ControlRoute("GET", "/v1/models", handlers.models, NoOrder, _READ),
    ControlRoute("GET", "/v1/models/{name}", handlers.model, NoOrder, _READ),
    ControlRoute("GET", "/v1/models/{name}/logs", handlers.logs, NoOrder, _READ),
    ControlRoute("GET", "/v1/workers", handlers.workers, NoOrder, _READ),
    ControlRoute("GET", "/v1/config", handlers.config, NoOrder, _READ),
    ControlRoute("POST", "/v1/reload", handlers.reload, NoOrder),
    ControlRoute("POST", "/v1/models/pull", handlers.pull, PullOrder),
    ControlRoute("POST", "/v1/models/verify", handlers.verify, VerifyOrder),
    ControlRoute("POST", "/v1/models/prune", handlers.prune, PruneOrder),
    ControlRoute("POST", "/v1/models/{name}/load", handlers.load, NoOrder),
    ControlRoute("POST", "/v1/models/{name}/unload", handlers.unload, NoOrder),
    ControlRoute("POST", "/v1/models/{name}/restart", handlers.restart, NoOrder),
    ControlRoute("POST", "/v1/models/{name}/copy", handlers.copy, CopyOrder),
    ControlRoute("POST", "/v1/models/{name}/create", handlers.create, CreateOrder),
    ControlRoute("POST", "/v1/models/{name}/delete", handlers.delete, NoOrder),
)


class Control:
    """Answers requests on the control socket."""

    def __init__(self, daemon: Daemon, routes: Sequence[AnyRoute] = ROUTES) -> None:
        self._daemon = daemon
        self._routes = routes

    async def handle(self, request: ControlRequest) -> ControlResponse | StreamResponse:
        """One request. Raises VllamadError for a refusal."""
        matches = ((route, route.name_in(request)) for route in self._routes)
        route, name = next(((r, name) for r, name in matches if name is not None), (None, ""))
        self._check(request.peer, route.access if route else ControlAccess.ADMIN)
        if route is None:
            path = "/" + "/".join(request.path)
            raise BadInput(f"no such route: {request.method} {path}", status=404)
        if route.access is ControlAccess.ADMIN:
            self._log(request)
        return await route.serve(self._daemon, request, name)

    def _check(self, peer: Peer, access: ControlAccess) -> None:
        """Raise NotAllowed for a peer without `access`."""
        group = self._daemon.settings.control.group
        match access:
            case ControlAccess.READ | ControlAccess.ADMIN:
                allowed = may_control(peer, own_uid=self._daemon.uid, group_gid=gid_of(group))
        if not allowed:
            raise NotAllowed(
                f"uid {peer.uid} may not control vllamad",
                hint=f"become root, or join the group {group}",
            )

    def _log(self, request: ControlRequest) -> None:
        path, peer = "/".join(request.path), request.peer
        fields = {"path": path, "uid": peer.uid, "peer": peer.pid}
        event(log, logging.INFO, "control request", LogEvent.CONTROL_REQUEST, **fields)


def _decode(body: bytes, kind: type[Order]) -> Order:
    if issubclass(kind, NoOrder):
        return kind()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the order: {error}") from error
