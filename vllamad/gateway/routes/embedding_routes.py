"""embed, embeddings, rerank and score: texts into vectors or scores, by a session's worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

import trio
from quart import Response, g

from vllamad.errors import BadInput, EngineRefused, ModelNotFound, NotSupported, VllamadError
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference.model_lookup import find, named
from vllamad.gateway.inference.prompts import Prompts
from vllamad.gateway.inference.response_stream import read_whole
from vllamad.gateway.inference.session import Needs, Session, inference
from vllamad.gateway.routes.bodies import JSON, read
from vllamad.gateway.routes.relay import relayed
from vllamad.gateway.server.quart_glue import hold_until_response_sent
from vllamad.translate.engine import refusal_texts
from vllamad.translate.go.json_decoder import is_list, quoted
from vllamad.translate.ollama import embeddings as wire
from vllamad.translate.ollama.embeddings import Vectors
from vllamad.translate.ollama.options import check_options
from vllamad.translate.ollama.to_engine import ModelTraits
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
    needs = _embedding_or(BadInput(wire.NOT_SUPPORTED, status=501)) if texts else _nothing
    session = await hold_until_response_sent(
        inference(context, installed, needs, keep_alive=asked.keep_alive)
    )
    options = session.options(asked.options)
    received, granted = _record().received, session.granted_ns
    if not texts:
        return Response(wire.embed_reply(asked.model, Vectors([], 0)), content_type=JSON)
    limit = _limit(session, options)
    truncate_to = wire.cut_to(limit, -1 if asked.truncate else None)
    found = await _vectors(session, texts, limit=limit, truncate_to=truncate_to)
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
    refusal = BadInput(wire.NOT_SUPPORTED, status=500)
    needs = _embedding_or(refusal) if asked.prompt else _nothing
    session = await hold_until_response_sent(
        inference(context, installed, needs, keep_alive=asked.keep_alive)
    )
    options = session.options(asked.options)
    if not asked.prompt:
        return Response(wire.embeddings_reply(()), content_type=JSON)
    limit = _limit(session, options)
    truncate_to = wire.cut_to(limit, -1) if "num_ctx" in options else None
    try:
        found = await _vectors(session, [asked.prompt], limit=limit, truncate_to=truncate_to)
    except EngineRefused as error:
        raise EngineRefused(error.message, status=500) from error
    return Response(wire.embeddings_reply(found.vectors[0]), content_type=JSON)


async def openai_embeddings(context: Context) -> Response:
    """`POST /v1/embeddings`: vectors as on `/api/embed`, inputs as vLLM takes them."""
    asked = await read(wire.decode_openai)
    installed = await find(context, asked.model, missing=BadInput("model is required"))
    refusal = NotSupported(f"{quoted(asked.model)} does not support embeddings")
    embeds = _embedding_or(refusal)

    def needs(traits: ModelTraits) -> None:
        embeds(traits)
        if asked.has_tokens and not context.settings.server.token_inputs:
            raise BadInput(wire.NO_TOKENS)

    session = await hold_until_response_sent(inference(context, installed, needs))
    limit = _limit(session, session.traits.stored)
    truncate_to = wire.cut_to(limit, asked.truncate_to)
    found = await _vectors(session, asked.inputs, limit=limit, truncate_to=truncate_to)
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


def _embedding_or(refusal: VllamadError) -> Needs:
    """The need of a model that embeds, with the words of the route for one that does not."""

    def needs(traits: ModelTraits) -> None:
        if "embedding" not in traits.capabilities:
            raise refusal

    return needs


def _nothing(_traits: ModelTraits) -> None:
    """The need of a request that only loads the model."""


def _record() -> Record:
    record: Record = g.record
    return record


def _limit(session: Session, options: Mapping[str, object]) -> int:
    """Tokens that `num_ctx` allows each input, 0 where the model takes no more than that anyway."""
    limit = session.limit(options)
    return limit if limit < (session.context_length or limit + 1) else 0


async def _vectors(
    session: Session,
    inputs: list[str] | list[object],
    *,
    limit: int,
    truncate_to: int | None,
) -> Vectors:
    """What the engine makes of `inputs`, each cut to `truncate_to` tokens, None for not cut.

    Raises EngineRefused in the words of these routes where one is longer than `limit` and not cut.
    """
    if truncate_to is None and limit:
        await _refuse_longer(session.prompts, inputs, limit)
    served = session.served_name
    call = wire.embeddings_call(inputs, served_name=served, truncate_to=truncate_to)
    output = OpenAIPassthrough(stream=False, served_name=served, requested_name=served)
    try:
        upstream = await session.send(call.path, call.encode(), output, stream=False)
    except EngineRefused as error:
        if error.message == refusal_texts.TOO_LONG:
            raise EngineRefused(wire.TOO_LONG, status=error.status) from error
        raise
    body = await read_whole(upstream)
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
