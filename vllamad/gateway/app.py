"""The Quart-Trio application: the route table, who is let in, and refusals as JSON.

What a route does is in `generation.py` and `library.py`; here is only how it is reached.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import trio
from quart import Response, current_app, g, request
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, NotFound

from vllamad.access.api_keys import admit
from vllamad.errors import Unavailable, VllamadError
from vllamad.gateway.context import Context, Record, context_of
from vllamad.gateway.errors import public_message, status_of
from vllamad.gateway.inference.token_pump import TokenPump
from vllamad.gateway.routes import (
    audio,
    blobs,
    cloud_stubs,
    embedding_routes,
    generation,
    manage,
    model_lists,
)
from vllamad.gateway.server.quart_glue import GatewayApp
from vllamad.host.log import named
from vllamad.host.log_events import LogEvent
from vllamad.translate.error_bodies import anthropic_error, api_error, openai_error

log = logging.getLogger(__name__)

Route = Callable[[Context], Awaitable[Response]]

JSON: Final = "application/json; charset=utf-8"
_SMALL: Final = 64 * 1024  # bytes of a body that is heard out although it was refused
_PATIENCE: Final = 1.0  # seconds for that
_METHODS: Final = ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# Path, methods in the order `Allow` lists them, handler.
ROUTES: Final[tuple[tuple[str, tuple[str, ...], Route], ...]] = (
    ("/", ("HEAD", "GET"), model_lists.root),
    ("/health", ("HEAD", "GET"), model_lists.health),
    ("/api/version", ("HEAD", "GET"), model_lists.version),
    ("/api/tags", ("HEAD", "GET"), model_lists.tags),
    ("/api/ps", ("GET",), model_lists.ps),
    ("/api/show", ("POST",), model_lists.show),
    ("/api/generate", ("POST",), generation.generate),
    ("/api/chat", ("POST",), generation.chat),
    ("/api/embed", ("POST",), embedding_routes.embed),
    ("/api/embeddings", ("POST",), embedding_routes.embeddings),
    ("/api/copy", ("POST",), manage.copy),
    ("/api/create", ("POST",), manage.create),
    ("/api/delete", ("DELETE",), manage.delete),
    ("/api/pull", ("POST",), manage.pull),
    ("/api/push", ("POST",), manage.push),
    ("/api/blobs/<digest>", ("HEAD", "POST"), blobs.blob),
    ("/api/status", ("GET",), cloud_stubs.status),
    ("/api/me", ("POST",), cloud_stubs.me),
    ("/api/signout", ("POST",), cloud_stubs.signout),
    ("/api/user/keys/<key>", ("DELETE",), cloud_stubs.signout),
    ("/api/experimental/web_search", ("POST",), cloud_stubs.web_search),
    ("/api/experimental/web_fetch", ("POST",), cloud_stubs.web_fetch),
    ("/api/experimental/model-recommendations", ("GET",), cloud_stubs.recommendations),
    ("/v1/models", ("GET",), model_lists.openai_models),
    ("/v1/models/<path:name>", ("GET",), model_lists.openai_model),
    ("/v1/chat/completions", ("POST",), generation.openai_chat),
    ("/v1/completions", ("POST",), generation.openai_completions),
    ("/v1/responses", ("POST",), generation.openai_responses),
    ("/v1/messages", ("POST",), generation.anthropic_messages),
    ("/v1/messages/count_tokens", ("POST",), generation.anthropic_count),
    ("/v1/audio/transcriptions", ("POST",), audio.transcriptions),
    ("/v1/audio/translations", ("POST",), audio.translations),
    ("/v1/embeddings", ("POST",), embedding_routes.openai_embeddings),
    ("/rerank", ("POST",), embedding_routes.rerank),
    ("/v1/rerank", ("POST",), embedding_routes.rerank),
    ("/v2/rerank", ("POST",), embedding_routes.rerank),
    ("/score", ("POST",), embedding_routes.score),
    ("/v1/score", ("POST",), embedding_routes.score),
)


def make_app(context: Context, hub: TokenPump | None) -> GatewayApp:
    """The application of one gateway."""
    app = GatewayApp("vllamad.gateway", hub=hub, max_body=context.settings.server.max_body)
    app.config["CONTEXT"] = context
    for path, methods, route in ROUTES:
        app.add_url_rule(path, path, _view(route, methods), methods=list(_METHODS))
    app.before_request(_admit)
    app.after_request(_finish)
    app.register_error_handler(VllamadError, _refused)
    app.register_error_handler(HTTPException, _http_refused)
    app.register_error_handler(Exception, _broken)
    return app


_numbers = count(1)


async def _admit() -> ResponseReturnValue | None:
    """Who asks? Host and Origin are judged before the route is looked at, as Ollama does."""
    g.record = Record(
        request_id=f"{time.time_ns() // 1_000_000:x}-{next(_numbers)}",
        method=request.method,
        path=request.path,
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
    admit(
        context_of().settings.api_keys,
        method=request.method,
        path=request.path,
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


def _view(route: Route, methods: tuple[str, ...]) -> Callable[..., Awaitable[Response]]:
    async def view(**_: str) -> Response:
        if request.method not in methods:
            return _not_allowed(methods)
        return await route(context_of())

    return view


def _not_allowed(methods: tuple[str, ...]) -> Response:
    headers = {"Allow": ", ".join(methods)}
    return _text("405 method not allowed", 405, headers)


def _text(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(text, status=status, headers=headers, content_type="text/plain")


def _error(status: int, message: str) -> Response:
    """A refusal in the form of the API it was asked on."""
    if request.path.startswith("/v1/messages"):
        body = anthropic_error(status, message, f"req_{g.record.request_id.replace('-', ''):0>24}")
        return Response(body, status=status, content_type="application/json")
    if request.path.startswith(("/v1/", "/v2/", "/rerank", "/score")):
        return Response(
            openai_error(status, message), status=status, content_type="application/json"
        )
    return Response(api_error(message), status=status, content_type=JSON)


async def _refused(error: VllamadError) -> Response:
    status = status_of(error)
    response = _error(status, public_message(error))
    if isinstance(error, Unavailable) or status == 503:
        response.headers["Retry-After"] = "1"
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    g.record.error = error.kind
    return response


async def _http_refused(error: HTTPException) -> Response:
    """Refusals of Quart's own: no such route, a body too large or too slow."""
    status = error.code or 500
    if isinstance(error, NotFound):
        return _unknown_route()
    if status == 405:  # a method that no route has
        endpoint, _ = current_app.url_map.bind("").match(request.path, method="GET")
        return _not_allowed(next(methods for path, methods, _ in ROUTES if path == endpoint))
    if status == 413:
        limit = context_of().settings.server.max_body
        return _error(413, f"the request body is larger than {limit} bytes (server.max_body)")
    return _error(status, (error.description or error.name).lower().rstrip("."))


def _unknown_route() -> Response:
    path = request.path
    if path != "/" and path.endswith("/") and _is_known(path.rstrip("/")):
        code = 301 if request.method in ("GET", "HEAD") else 307
        return Response(b"", status=code, headers={"Location": path.rstrip("/")})
    if path.startswith("/v1"):
        return _error(404, f"no such route: {path[:80]}")
    return _text("404 page not found", 404)


def _is_known(path: str) -> bool:
    return any(path == known for known, _, _ in ROUTES) or path.startswith("/v1/models/")


async def _broken(error: Exception) -> Response:
    """A bug of ours ends one request. The trace goes to the log, never to the client."""
    extra = named(LogEvent.INTERNAL_ERROR, request_id=g.record.request_id)
    log.error("internal error in a request", exc_info=error, extra=extra)
    return _error(500, "internal error: see the log of vllamad")
