"""embed, embeddings, rerank and score: texts into vectors or scores, by a worker leased for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import trio
from quart import Response, g

from vllamad.errors import BadInput, EngineRefused, ModelNotFound, NotSupported
from vllamad.gateway.context import Context, Record
from vllamad.gateway.generation import JSON, WHOLE, hold, read, relayed
from vllamad.gateway.leases import Lease
from vllamad.gateway.models import find, named
from vllamad.gateway.relay import ask, collect
from vllamad.gateway.truncation import remark
from vllamad.models.catalog import Installed
from vllamad.wire import embeddings as wire
from vllamad.wire import engine_words, scoring
from vllamad.wire.embeddings import Vectors
from vllamad.wire.gojson import quoted
from vllamad.wire.options import check_options
from vllamad.wire.verbatim import Verbatim

_LARGE: Final = 1 << 14  # bytes of floats: to spell more would hold up every stream

T = TypeVar("T")


async def embed(context: Context) -> Response:
    """`POST /api/embed`."""
    asked = await read(wire.decode_embed)
    missing = ModelNotFound(f"model '{asked.model}' not found")
    named(asked.model, missing=missing)
    texts = asked.texts()
    installed = await find(context, asked.model, missing=missing, unknown=_unknown)
    check_options(asked.options)
    if texts and not _embeds(installed):
        raise BadInput(wire.NOT_SUPPORTED, status=501)
    lease = await _lease(context, installed, asked.keep_alive)
    remark(context.too_large, installed.name, lease.grant, asked.options)
    received, granted = _record().received, time.monotonic_ns()
    if not texts:
        return Response(wire.embed_reply(asked.model, Vectors([], 0)), content_type=JSON)
    found = await _vectors(context, lease, texts, truncate_to=-1 if asked.truncate else None)
    spell = partial(
        wire.embed_reply,
        asked.model,
        found,
        dimensions=asked.dimensions,
        total_duration=time.monotonic_ns() - received,
        load_duration=granted - received,
    )
    return Response(await _spelled(found, spell), content_type=JSON)


async def embeddings(context: Context) -> Response:
    """`POST /api/embeddings`, the older form: one text, never cut, and all that fails is a 500."""
    asked = await read(wire.decode_embeddings)
    installed = await find(
        context, asked.model, missing=BadInput("model is required"), unknown=_unknown
    )
    check_options(asked.options)
    if asked.prompt and not _embeds(installed):
        raise BadInput(wire.NOT_SUPPORTED, status=500)
    lease = await _lease(context, installed, asked.keep_alive)
    remark(context.too_large, installed.name, lease.grant, asked.options)
    if not asked.prompt:
        return Response(wire.embeddings_reply(()), content_type=JSON)
    try:
        found = await _vectors(context, lease, [asked.prompt], truncate_to=None)
    except EngineRefused as error:
        raise EngineRefused(error.message, status=500) from error
    return Response(wire.embeddings_reply(found.vectors[0]), content_type=JSON)


async def openai_embeddings(context: Context) -> Response:
    """`POST /v1/embeddings`: vectors as on `/api/embed`, inputs as vLLM takes them."""
    asked = await read(wire.decode_openai)
    installed = await find(context, asked.model, missing=BadInput("model is required"))
    if not _embeds(installed):
        raise NotSupported(f"{quoted(asked.model)} does not support embeddings")
    lease = await _lease(context, installed, None)
    found = await _vectors(context, lease, asked.inputs, truncate_to=asked.truncate_to)
    body = await _spelled(found, partial(wire.openai_reply, asked, found))
    return Response(body, content_type="application/json")


async def rerank(context: Context) -> Response:
    """`POST /rerank`, under three paths, relayed."""
    needs = ("embedding", "reranking")
    return await relayed(context, "/rerank", scoring.rerank_request, needs=needs)


async def score(context: Context) -> Response:
    """`POST /score`, under two paths, relayed."""
    needs = ("embedding", "scoring")
    return await relayed(context, "/score", scoring.score_request, needs=needs)


def _unknown(name: str) -> str:
    return f"model {quoted(name)} not found, try pulling it first"


def _embeds(installed: Installed) -> bool:
    return "embedding" in installed.capabilities


def _record() -> Record:
    record: Record = g.record
    return record


async def _lease(context: Context, installed: Installed, keep_alive: float | None) -> Lease:
    _record().model = installed.name
    return await hold(context, installed, keep_alive)


async def _vectors(
    context: Context, lease: Lease, inputs: list[str] | list[object], *, truncate_to: int | None
) -> Vectors:
    """What the engine makes of `inputs`. Raises EngineRefused in the words of these routes."""
    served, revoked = lease.grant.served_name, lease.revoked
    limits = replace(context.limits, first=WHOLE)
    call = wire.embeddings_call(inputs, served_name=served, truncate_to=truncate_to)
    output = Verbatim(stream=False, served_name=served, asked_name=served)
    endpoint, body = lease.grant.endpoint, call.encode()
    try:
        asked = await ask(endpoint, call.path, body, output, revoked=revoked, limits=limits)
    except EngineRefused as error:
        if error.message == engine_words.TOO_LONG:
            raise EngineRefused(wire.TOO_LONG, status=error.status) from error
        raise
    body = await collect(asked)
    found = await _off_the_loop(len(body), partial(wire.read_vectors, body, len(inputs)))
    _record().prompt_tokens = found.prompt_tokens
    return found


async def _spelled(found: Vectors, spell: Callable[[], bytes]) -> bytes:
    return await _off_the_loop(sum(4 * len(vector) for vector in found.vectors), spell)


async def _off_the_loop(size: int, work: Callable[[], T]) -> T:
    """Do `work` on so many bytes, in a thread if that would be noticed."""
    return await trio.to_thread.run_sync(work) if size > _LARGE else work()
