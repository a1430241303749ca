"""embed, embeddings, rerank and score: texts into vectors or scores, by a worker leased for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

import trio
from quart import Response, g

from vllamad.errors import BadInput, EngineRefused, ModelNotFound, NotSupported
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference.leases import Lease
from vllamad.gateway.inference.model_lookup import find, named
from vllamad.gateway.inference.prompts import Prompts
from vllamad.gateway.inference.response_stream import read_whole, send_request
from vllamad.gateway.inference.truncation import limit_of, remark
from vllamad.gateway.routes.generation import JSON, WHOLE, acquire_lease, read, relayed
from vllamad.models.installed import InstalledModel
from vllamad.translate.engine import refusal_texts
from vllamad.translate.go.json_decoder import is_list, quoted
from vllamad.translate.ollama import embeddings as wire
from vllamad.translate.ollama.embeddings import Vectors
from vllamad.translate.ollama.options import check_options
from vllamad.translate.openai import rerank_fields
from vllamad.translate.openai.passthrough import OpenAIPassthrough

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
    options = installed.overlay.parameters | asked.options
    remark(context.too_large, installed.name, lease.grant, options)
    received, granted = _record().received, time.monotonic_ns()
    if not texts:
        return Response(wire.embed_reply(asked.model, Vectors([], 0)), content_type=JSON)
    limit = _limit(lease, options)
    truncate_to = wire.cut_to(limit, -1 if asked.truncate else None)
    found = await _vectors(context, lease, texts, limit=limit, truncate_to=truncate_to)
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
    """`POST /api/embeddings`, the older form: one text, and all that fails is a 500.

    The text is cut where `num_ctx` says how long it may be, and else never.
    """
    asked = await read(wire.decode_embeddings)
    installed = await find(
        context, asked.model, missing=BadInput("model is required"), unknown=_unknown
    )
    check_options(asked.options)
    if asked.prompt and not _embeds(installed):
        raise BadInput(wire.NOT_SUPPORTED, status=500)
    lease = await _lease(context, installed, asked.keep_alive)
    options = installed.overlay.parameters | asked.options
    remark(context.too_large, installed.name, lease.grant, options)
    if not asked.prompt:
        return Response(wire.embeddings_reply(()), content_type=JSON)
    limit = _limit(lease, options)
    truncate_to = wire.cut_to(limit, -1) if "num_ctx" in options else None
    try:
        found = await _vectors(context, lease, [asked.prompt], limit=limit, truncate_to=truncate_to)
    except EngineRefused as error:
        raise EngineRefused(error.message, status=500) from error
    return Response(wire.embeddings_reply(found.vectors[0]), content_type=JSON)


async def openai_embeddings(context: Context) -> Response:
    """`POST /v1/embeddings`: vectors as on `/api/embed`, inputs as vLLM takes them."""
    asked = await read(wire.decode_openai)
    installed = await find(context, asked.model, missing=BadInput("model is required"))
    if not _embeds(installed):
        raise NotSupported(f"{quoted(asked.model)} does not support embeddings")
    if asked.has_tokens and not context.settings.server.token_inputs:
        raise BadInput(wire.NO_TOKENS)
    lease = await _lease(context, installed, None)
    limit = _limit(lease, installed.overlay.parameters)
    truncate_to = wire.cut_to(limit, asked.truncate_to)
    found = await _vectors(context, lease, asked.inputs, limit=limit, truncate_to=truncate_to)
    body = await _spelled(found, partial(wire.openai_reply, asked, found))
    return Response(body, content_type="application/json")


async def rerank(context: Context) -> Response:
    """`POST /rerank`, under three paths, relayed."""
    needs = ("embedding", "reranking")
    return await relayed(context, "/rerank", rerank_fields.rerank_request, needs=needs)


async def score(context: Context) -> Response:
    """`POST /score`, under two paths, relayed."""
    needs = ("embedding", "scoring")
    return await relayed(context, "/score", rerank_fields.score_request, needs=needs)


def _unknown(name: str) -> str:
    return f"model {quoted(name)} not found, try pulling it first"


def _embeds(installed: InstalledModel) -> bool:
    return "embedding" in installed.capabilities


def _record() -> Record:
    record: Record = g.record
    return record


def _limit(lease: Lease, options: Mapping[str, object]) -> int:
    """Tokens that `num_ctx` allows each input, 0 where the model takes no more than that anyway."""
    limit = limit_of(lease.grant, options)
    return limit if limit < (lease.grant.context_length or limit + 1) else 0


async def _lease(context: Context, installed: InstalledModel, keep_alive: float | None) -> Lease:
    _record().model = installed.name
    return await acquire_lease(context, installed, keep_alive)


async def _vectors(
    context: Context,
    lease: Lease,
    inputs: list[str] | list[object],
    *,
    limit: int,
    truncate_to: int | None,
) -> Vectors:
    """What the engine makes of `inputs`, each cut to `truncate_to` tokens, None for not cut.

    Raises EngineRefused in the words of these routes where one is longer than `limit` and not cut.
    """
    if truncate_to is None and limit:
        await _refuse_longer(Prompts(lease.grant, context.limits.gap), inputs, limit)
    served, revoked = lease.grant.served_name, lease.revoked
    limits = replace(context.limits, first=WHOLE)
    call = wire.embeddings_call(inputs, served_name=served, truncate_to=truncate_to)
    output = OpenAIPassthrough(stream=False, served_name=served, requested_name=served)
    endpoint, body = lease.grant.endpoint, call.encode()
    try:
        asked = await send_request(
            endpoint, call.path, body, output, revoked=revoked, limits=limits
        )
    except EngineRefused as error:
        if error.message == refusal_texts.TOO_LONG:
            raise EngineRefused(wire.TOO_LONG, status=error.status) from error
        raise
    body = await read_whole(asked)
    found = await _off_the_loop(len(body), partial(wire.read_vectors, body, len(inputs)))
    _record().prompt_tokens = found.prompt_tokens
    return found


async def _refuse_longer(prompts: Prompts, inputs: list[str] | list[object], limit: int) -> None:
    """Raise EngineRefused where one of `inputs` is longer than a limit below the engine's own."""
    for one in inputs:
        if isinstance(one, str):
            length = wire.longest(one)
            if length > limit:
                length = await prompts.count_text(one)
        else:
            length = len(one) if is_list(one) else 0
        if length > limit:
            raise EngineRefused(wire.TOO_LONG, status=400)


async def _spelled(found: Vectors, spell: Callable[[], bytes]) -> bytes:
    return await _off_the_loop(sum(4 * len(vector) for vector in found.vectors), spell)


async def _off_the_loop(size: int, work: Callable[[], T]) -> T:
    """Do `work` on so many bytes, in a thread if that would be noticed."""
    return await trio.to_thread.run_sync(work) if size > _LARGE else work()
