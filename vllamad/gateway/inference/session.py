"""One request's use of one worker, the same for every route that asks an engine.

A route reads the request and finds its model; `inference` checks what the request needs, leases a
worker, and gives the session that fits requests to it and sends them. What an API calls things is
not known here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

from quart import Response, g

from vllamad.errors import EngineRefused, VllamadError
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference import leases
from vllamad.gateway.inference.leases import Lease
from vllamad.gateway.inference.model_lookup import traits_for, without_missing_parsers
from vllamad.gateway.inference.prompts import Prompts
from vllamad.gateway.inference.response_stream import read_whole, send_request, stream_response
from vllamad.gateway.inference.truncation import limit_of, remark
from vllamad.gateway.inference.upstream import ResponseTranslator, UpstreamResponse
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.http.engine_client import JSON
from vllamad.models.installed import InstalledModel
from vllamad.translate.conversation.relayed_requests import conform_request
from vllamad.translate.engine.fit_to_worker import AnswerForm, fit_to_worker, take_answer_form
from vllamad.translate.engine.model_defaults import add_model_defaults
from vllamad.translate.engine.repetition import stop_repetition
from vllamad.translate.go.json_decoder import is_list
from vllamad.translate.ollama.to_engine import EngineCall, ModelTraits

log = logging.getLogger(__name__)

_WHOLE: Final = 1800.0  # seconds for a response that the engine sends only when it is complete
_JSON_RESPONSE: Final = "application/json; charset=utf-8"
_MOST_LOGGED: Final = 256  # kinds left out that are logged: clients may invent them

Needs = Callable[[ModelTraits], None]  # raises NotSupported, or a refusal in the route's own words
Body = dict[str, object]


class Counts(Protocol):
    """What the record of a request takes from its response."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...

    @property
    def failed(self) -> VllamadError | None: ...


@asynccontextmanager
async def inference(
    context: Context,
    installed: InstalledModel,
    needs: Needs,
    *,
    keep_alive: float | None = None,
) -> AsyncGenerator[Session]:
    """Hold a worker of `installed`, loading it first if need be; leaving gives it back.

    `needs` is checked before the load, and again where the worker lacks a parser. `keep_alive` is
    seconds. A route enters this with `hold_until_response_sent`. Raises what `needs` raises, and
    what the supervisor refuses with.
    """
    record: Record = g.record
    record.model = installed.name
    traits = await traits_for(context, installed)
    needs(traits)
    broker = context.settings.broker
    async with leases.lease(broker, installed.name, keep_alive, record.request_id) as lease:
        usable = without_missing_parsers(traits, lease.grant)
        if usable is not traits:
            needs(usable)
        yield Session(context, installed, usable, lease)


class Session:
    """A leased worker, and what the translation of a request must know of it."""

    def __init__(
        self, context: Context, installed: InstalledModel, traits: ModelTraits, lease: Lease
    ) -> None:
        self._context = context
        self._lease = lease
        self.installed = installed
        self.traits = traits
        self.granted_ns = time.monotonic_ns()

    @property
    def served_name(self) -> str:
        """The engine's name for the model, or for its LoRA adapter."""
        return self._lease.grant.served_name

    @property
    def context_length(self) -> int:
        """Tokens of the worker's context; 0 where it does not say."""
        return self._lease.grant.context_length

    @property
    def prompts(self) -> Prompts:
        """The engine's own tokenizer and template."""
        return Prompts(self._lease.grant, self._context.limits.gap)

    def options(self, requested: dict[str, object]) -> dict[str, object]:
        """The model's stored options with those `requested` on top; a large num_ctx is logged."""
        options = self.traits.stored | requested
        remark(self._context.too_large, self.installed.name, self._lease.grant, options)
        return options

    def limit(self, options: Mapping[str, object]) -> int:
        """Tokens that a prompt and its response may have together; 0 where there is no limit."""
        return limit_of(self._lease.grant, options)

    def fit(self, path: str, body: Body) -> tuple[Body, AnswerForm]:
        """A relayed request with the model's defaults, in the form its template and worker take."""
        installed, length = self.installed, self.context_length
        body = add_model_defaults(path, body, installed.overlay, length, self.traits.stored)
        body = conform_request(path, body, self.traits.rules)
        fitted = fit_to_worker(
            body, self.traits, served_name=self.served_name, context_length=length
        )
        return take_answer_form(fitted)

    def fit_form(self, path: str, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The fields of a form, with the model's defaults for those that the client left out."""
        given: Body = dict(fields)
        length, stored = self.context_length, self.traits.stored
        body = add_model_defaults(path, given, self.installed.overlay, length, stored)
        added = [(name, str(value)) for name, value in body.items() if name not in given]
        return [*fields, *added]

    def stop_repetition(self, call: EngineCall, *, limited: bool) -> EngineCall:
        """`call`, ended by the engine where its response only repeats itself."""
        return stop_repetition(call, self._context.settings.server.max_repetitions, limited=limited)

    async def send(
        self,
        path: str,
        body: bytes,
        output: ResponseTranslator,
        *,
        stream: bool,
        content_type: str = JSON,
    ) -> UpstreamResponse:
        """Post `body` to the engine; its response, once it has a head.

        Raises EngineRefused for a refusal of the engine's, WorkerLost when it is gone or silent.
        """
        limits = self._context.limits
        return await send_request(
            self._lease.grant.endpoint,
            path,
            body,
            output,
            revoked=self._lease.revoked,
            limits=limits if stream else replace(limits, first=_WHOLE),
            content_type=content_type,
        )

    async def respond(
        self, call: EngineCall, output: ResponseTranslator, *, streamed: str | None
    ) -> Response:
        """The response of the engine, in pieces of content type `streamed`, or at once as JSON."""
        stream = bool(call.body.get("stream"))
        try:
            upstream = await self.send(call.path, call.encode(), output, stream=stream)
            if streamed is None:
                return Response(await read_whole(upstream), content_type=_JSON_RESPONSE)
            return await stream_response(upstream, streamed)
        except EngineRefused as error:
            raise (call.blamed_for(error) or error) from None


@asynccontextmanager
async def recorded(counts: Counts) -> AsyncGenerator[None]:
    """Write the request's record when its response is over, with what only its end tells."""
    record: Record = g.record
    record.streams = True
    try:
        yield
    finally:
        record.prompt_tokens = counts.prompt_tokens
        record.completion_tokens = counts.completion_tokens
        if counts.failed is not None:
            record.error = counts.failed.kind
        record.write()


def log_left_out(context: Context, model: str, route: str, kinds: object) -> None:
    """Log which kinds of tools and content are left out, once for each model and route."""
    logged = context.left_out
    for kind in map(str, kinds if is_list(kinds) else ()):
        if (model, route, kind) not in logged and len(logged) < _MOST_LOGGED:
            logged.add((model, route, kind))
            fields = {"model": model, "route": route, "kind": kind}
            event(
                log,
                logging.INFO,
                "ignored in a request",
                LogEvent.REQUEST_ITEM_IGNORED,
                **fields,
            )
