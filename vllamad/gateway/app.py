"""The Quart-Trio application: each request's Host, Origin and key checked, errors as JSON.

What a route is comes from `routes/table.py`; what it does, from its handler.
"""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import Final, cast

import trio
from quart import Response, current_app, g, request
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, NotFound

from vllamad.access.api_keys import Access, check_key
from vllamad.errors import VllamadError
from vllamad.gateway.context import Context, Record, context_of
from vllamad.gateway.inference.token_pump import TokenPump
from vllamad.gateway.routes.table import ROUTES, Api, Route, RouteTable, api_of_unknown
from vllamad.gateway.server.quart_glue import GatewayApp
from vllamad.host.log import named
from vllamad.host.log_events import LogEvent
from vllamad.translate.error_bodies import anthropic_error, api_error, openai_error, public_message

log = logging.getLogger(__name__)

JSON: Final = "application/json; charset=utf-8"
_SMALL: Final = 64 * 1024  # bytes of a refused request's body that are still read
_PATIENCE: Final = 1.0  # seconds for that
_METHODS: Final = ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def make_app(
    context: Context, hub: TokenPump | None, routes: tuple[Route, ...] = ROUTES
) -> GatewayApp:
    """The application of one gateway."""
    table = RouteTable(routes)
    max_body = context.settings.server.max_body
    app = GatewayApp("vllamad.gateway", hub=hub, max_body=max_body, streams_body=table.streams)
    app.config["CONTEXT"] = context
    app.config["ROUTES"] = table
    for path in table.paths:
        app.add_url_rule(path, path, _serve_route, methods=list(_METHODS))
    app.before_request(_admit)
    app.after_request(_finish)
    app.register_error_handler(VllamadError, _refused)
    app.register_error_handler(HTTPException, _http_refused)
    app.register_error_handler(Exception, _broken)
    return app


_numbers = count(1)


async def _admit() -> ResponseReturnValue | None:
    """Check Host and Origin, then the key, and only then the path: Ollama's order."""
    route = g.route = _table().find(request.path, request.method)
    g.record = Record(
        request_id=f"{time.time_ns() // 1_000_000:x}-{next(_numbers)}",
        method=request.method,
        path=request.path,
        route=route.path if route else "",
        received=time.monotonic_ns(),
    )
    decision = context_of().gate.admit(
        origin=request.headers.get("Origin"),
        host=request.headers.get("Host", ""),
        method=request.method,
    )
    g.headers = decision.headers
    if decision.status is not None:
        return Response(b"", status=decision.status)
    check_key(
        context_of().settings.api_keys,
        route.access if route else Access.MANAGE,
        authorization=request.headers.get("Authorization", ""),
        api_key=request.headers.get("X-Api-Key", ""),
    )
    return None


async def _finish(response: Response) -> Response:
    if 0 < (request.content_length or 0) <= _SMALL:
        # Refused unread: were the answer there before the body, the connection could not go on.
        with trio.move_on_after(_PATIENCE):
            await request.get_data(cache=False)
    if response.headers.get("Content-Length") == "0":
        response.headers.pop("Content-Type", None)  # Quart says text/html of nothing, too
    if response.status_code == 204:
        response.headers.pop("Content-Length", None)  # which has none, RFC 9110 says
    for name, value in g.get("headers", ()):
        response.headers.add(name, value)
    record: Record = g.record
    response.headers["X-Request-Id"] = record.request_id
    record.status = response.status_code
    if not record.streams:
        record.write()
    return response


async def _serve_route(**_: str) -> Response:
    """Run the handler of the route whose access was checked."""
    route: Route | None = g.route
    if route is None:
        return _unknown_route()
    if request.method not in route.methods:
        return _method_refused()
    return await route.handler(context_of())


def _method_refused() -> Response:
    allowed = ", ".join(_table().methods(request.path))
    return _text("405 method not allowed", 405, {"Allow": allowed})


def _table() -> RouteTable:
    return cast("RouteTable", current_app.config["ROUTES"])


def _text(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(text, status=status, headers=headers, content_type="text/plain")


def _error(status: int, message: str) -> Response:
    """An error in the form of the route's API."""
    route: Route | None = g.route
    match route.api if route else api_of_unknown(request.path):
        case Api.ANTHROPIC:
            request_id = f"req_{g.record.request_id.replace('-', ''):0>24}"
            body, content_type = anthropic_error(status, message, request_id), "application/json"
        case Api.OPENAI:
            body, content_type = openai_error(status, message), "application/json"
        case Api.OLLAMA:
            body, content_type = api_error(message), JSON
    return Response(body, status=status, content_type=content_type)


async def _refused(error: VllamadError) -> Response:
    response = _error(error.status, public_message(error))
    if error.status == 503:
        response.headers["Retry-After"] = "1"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    g.record.error = error.kind
    return response


async def _http_refused(error: HTTPException) -> Response:
    """Refusals of Quart's own: no such route, a body too large or too slow."""
    status = error.code or 500
    if isinstance(error, NotFound):
        return _unknown_route()
    if status == 405:  # a method that no route has
        return _method_refused()
    if status == 413:
        limit = context_of().settings.server.max_body
        return _error(413, f"the request body is larger than {limit} bytes (server.max_body)")
    return _error(status, (error.description or error.name).lower().rstrip("."))


def _unknown_route() -> Response:
    path = request.path
    if path != "/" and path.endswith("/") and path.rstrip("/") in _table().paths:
        code = 301 if request.method in ("GET", "HEAD") else 307
        return Response(b"", status=code, headers={"Location": path.rstrip("/")})
    if path.startswith("/v1"):
        return _error(404, f"no such route: {path[:80]}")
    return _text("404 page not found", 404)


async def _broken(error: Exception) -> Response:
    """A bug of ours ends one request. The trace goes to the log, never to the client."""
    extra = named(LogEvent.INTERNAL_ERROR, request_id=g.record.request_id)
    log.error("internal error in a request", exc_info=error, extra=extra)
    return _error(500, "internal error: see the log of vllamad")
