"""The route table: every path of the gateway, with all that is decided before its handler runs.

Authorisation, the methods of a 405, the form of an error, how a body is received, the `route` of
the request log and docs/openapi.yaml come from here. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quart import Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from vllamad.access.api_keys import Access
from vllamad.gateway.context import Context
from vllamad.gateway.routes import (
    anthropic,
    audio,
    blobs,
    cloud_stubs,
    embedding_routes,
    manage,
    model_lists,
    ollama,
    openai,
)


class Api(Enum):
    """Whose API a route belongs to: the form of its errors."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Body(Enum):
    """What a route does with the body of a request."""

    NONE = "none"  # not read
    KEPT = "kept"  # held in memory, at most `server.max_body` bytes of it
    STREAMED = "streamed"  # read piece by piece; may be larger than memory


Handler = Callable[[Context], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path with the methods of one handler, in the order `Allow` lists them.

    A route that is written without `access` takes a key that may manage.
    """

    path: str  # as werkzeug spells rules
    methods: tuple[str, ...]
    handler: Handler
    access: Access = Access.MANAGE
    api: Api = Api.OLLAMA
    body: Body = Body.KEPT


class RouteTable:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_path: dict[str, list[Route]] = {}
        for route in routes:
            self._by_path.setdefault(route.path, []).append(route)
        self._map = Map([Rule(path, endpoint=path) for path in self._by_path]).bind("")

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self._by_path)

    def find(self, path: str, method: str) -> Route | None:
        """The route of `path`, a `/` at its end aside; None where there is none.

        With a method that the path does not have it is the first route of the path.
        """
        routes = self._of_path(path)
        for route in routes:
            if method in route.methods:
                return route
        return routes[0] if routes else None

    def methods(self, path: str) -> tuple[str, ...]:
        """All methods of `path`."""
        return tuple(method for route in self._of_path(path) for method in route.methods)

    def streams(self, path: str) -> bool:
        """Whether a body sent to `path` is read piece by piece."""
        return any(route.body is Body.STREAMED for route in self._of_path(path))

    def _of_path(self, path: str) -> list[Route]:
        try:
            rule, _ = self._map.match(path.rstrip("/") or "/", method="GET")
        except HTTPException:  # not found, or a redirect to another spelling of the path
            return []
        return self._by_path[rule]


def api_of_unknown(path: str) -> Api:
    """The API that a path without a route belongs to."""
    if path.startswith("/v1/messages"):
        return Api.ANTHROPIC
    return Api.OPENAI if path.startswith(("/v1/", "/v2/")) else Api.OLLAMA


_OPEN, _INFER, _MANAGE = Access.OPEN, Access.INFER, Access.MANAGE
_OPENAI, _ANTHROPIC = Api.OPENAI, Api.ANTHROPIC
_NO_BODY, _STREAMED = Body.NONE, Body.STREAMED
_READ: Final = ("HEAD", "GET")
_GET: Final = ("GET",)
_POST: Final = ("POST",)

ROUTES: Final = (
    Route("/", _READ, model_lists.root, _OPEN, body=_NO_BODY),
    Route("/health", _READ, model_lists.health, _INFER, body=_NO_BODY),
    Route("/api/version", _READ, model_lists.version, _OPEN, body=_NO_BODY),
    Route("/api/tags", _READ, model_lists.tags, _INFER, body=_NO_BODY),
    Route("/api/ps", _GET, model_lists.ps, _INFER, body=_NO_BODY),
    Route("/api/show", _POST, model_lists.show, _INFER),
    Route("/api/generate", _POST, ollama.generate, _INFER),
    Route("/api/chat", _POST, ollama.chat, _INFER),
    Route("/api/embed", _POST, embedding_routes.embed, _INFER),
    Route("/api/embeddings", _POST, embedding_routes.embeddings, _INFER),
    Route("/api/copy", _POST, manage.copy, _MANAGE),
    Route("/api/create", _POST, manage.create, _MANAGE),
    Route("/api/delete", ("DELETE",), manage.delete, _MANAGE),
    Route("/api/pull", _POST, manage.pull, _MANAGE),
    Route("/api/push", _POST, manage.push, _MANAGE),
    Route("/api/blobs/<digest>", ("HEAD",), blobs.blob, _INFER, body=_NO_BODY),
    Route("/api/blobs/<digest>", _POST, blobs.blob, _MANAGE, body=_STREAMED),
    Route("/api/status", _GET, cloud_stubs.status, _INFER, body=_NO_BODY),
    Route("/api/me", _POST, cloud_stubs.me, _INFER, body=_NO_BODY),
    Route("/api/signout", _POST, cloud_stubs.signout, _INFER, body=_NO_BODY),
    Route("/api/user/keys/<key>", ("DELETE",), cloud_stubs.signout, _INFER, body=_NO_BODY),
    Route("/api/experimental/web_search", _POST, cloud_stubs.web_search, _INFER),
    Route("/api/experimental/web_fetch", _POST, cloud_stubs.web_fetch, _INFER),
    Route(
        "/api/experimental/model-recommendations",
        _GET,
        cloud_stubs.recommendations,
        _INFER,
        body=_NO_BODY,
    ),
    Route("/v1/models", _GET, model_lists.openai_models, _INFER, _OPENAI, _NO_BODY),
    Route("/v1/models/<path:name>", _GET, model_lists.openai_model, _INFER, _OPENAI, _NO_BODY),
    Route("/v1/chat/completions", _POST, openai.openai_chat, _INFER, _OPENAI),
    Route("/v1/completions", _POST, openai.openai_completions, _INFER, _OPENAI),
    Route("/v1/responses", _POST, openai.openai_responses, _INFER, _OPENAI),
    Route("/v1/messages", _POST, anthropic.anthropic_messages, _INFER, _ANTHROPIC),
    Route("/v1/messages/count_tokens", _POST, anthropic.anthropic_count, _INFER, _ANTHROPIC),
    Route("/v1/audio/transcriptions", _POST, audio.transcriptions, _INFER, _OPENAI),
    Route("/v1/audio/translations", _POST, audio.translations, _INFER, _OPENAI),
    Route("/v1/embeddings", _POST, embedding_routes.openai_embeddings, _INFER, _OPENAI),
    Route("/rerank", _POST, embedding_routes.rerank, _INFER, _OPENAI),
    Route("/v1/rerank", _POST, embedding_routes.rerank, _INFER, _OPENAI),
    Route("/v2/rerank", _POST, embedding_routes.rerank, _INFER, _OPENAI),
    Route("/score", _POST, embedding_routes.score, _INFER, _OPENAI),
    Route("/v1/score", _POST, embedding_routes.score, _INFER, _OPENAI),
)
