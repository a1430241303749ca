"""What the server and the application share of one request, typed, in ASGI's `scope["state"]`.

A test client brings no server: then there is no link, and responses go the plain way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, cast

import trio
from hypercorn.typing import ConnectionState, Scope

_LINK: Final = "vllamad.link"
_RESOURCES: Final = "vllamad.resources"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLink:
    """The connection of a request, as far as an application may use it."""

    stream: trio.SocketStream
    stop_counting: Callable[[], None]  # for a body of which the application keeps nothing


def linked_state(link: ServerLink) -> ConnectionState:
    """The state of a connection, which Hypercorn copies for each request."""
    return ConnectionState({_LINK: link})


def link_of(scope: Scope) -> ServerLink | None:
    """The connection behind a request; None without a server of ours."""
    return cast("ServerLink | None", _state(scope).get(_LINK))


def keep_resources(scope: Scope, resources: AsyncExitStack) -> None:
    """Store what is released once the response is sent."""
    _state(scope)[_RESOURCES] = resources


def resources_of(scope: Scope) -> AsyncExitStack:
    """What `keep_resources` stored for this request."""
    return cast("AsyncExitStack", _state(scope)[_RESOURCES])


def _state(scope: Scope) -> dict[str, object]:
    return cast("dict[str, Any]", scope).setdefault("state", {})
