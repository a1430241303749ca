"""Ollama's routes of generation: generate and chat."""

from __future__ import annotations

import time
from functools import partial

from quart import Response, g

from vllamad.errors import BadInput, ModelNotFound
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference import leases
from vllamad.gateway.inference.model_lookup import find
from vllamad.gateway.inference.response_stream import OllamaStreamEncoder
from vllamad.gateway.inference.session import Session, inference, recorded
from vllamad.gateway.inference.truncation import HEADER, fitted_in, header, tell
from vllamad.gateway.routes.bodies import JSON, NDJSON, read
from vllamad.gateway.server.quart_glue import hold_until_response_sent
from vllamad.models.installed import InstalledModel
from vllamad.translate.go.timestamps import rfc3339
from vllamad.translate.ollama import encode
from vllamad.translate.ollama.encode import CHAT, GENERATE, NOTHING_TRUNCATED, Spelling, Truncated
from vllamad.translate.ollama.options import kept_first, predicts_nothing, sets_limit
from vllamad.translate.ollama.request import (
    ChatRequest,
    GenerateRequest,
    decode_chat,
    decode_generate,
)
from vllamad.translate.ollama.stream import Reply
from vllamad.translate.ollama.to_engine import (
    EngineCall,
    chat_call,
    check,
    generate_call,
    images_of,
)

OllamaRequest = ChatRequest | GenerateRequest


async def generate(context: Context) -> Response:
    """`POST /api/generate`."""
    request = await read(decode_generate)
    missing = ModelNotFound(f"model '{request.model}' not found")
    installed = await find(context, request.model, missing=missing)
    return await _respond(context, request, installed, GENERATE)


async def chat(context: Context) -> Response:
    """`POST /api/chat`."""
    request = await read(decode_chat)
    installed = await find(context, request.model, missing=BadInput("model is required"))
    return await _respond(context, request, installed, CHAT)


async def _respond(
    context: Context, request: OllamaRequest, installed: InstalledModel, spelling: Spelling
) -> Response:
    record: Record = g.record
    record.model = installed.name
    if request.wants_unload:
        await leases.unload(context.settings.broker, installed.worker_name)
        return _settled(request, spelling, "unload")
    session = await hold_until_response_sent(
        inference(context, installed, partial(check, request), keep_alive=request.keep_alive)
    )
    if request.is_empty:
        return _settled(request, spelling, "load")
    call, truncated = await _engine_call(session, request)
    if request.debug_render_only:
        return await _rendered(session, request, call, spelling)
    reply = Reply(
        spelling,
        request.model,
        stream=request.stream,
        thinking=request.think is not False,
        top_logprobs=request.top_logprobs,
        muted=predicts_nothing(session.traits.stored, request.options),
        truncated=truncated,
    )
    await hold_until_response_sent(recorded(reply))
    output = OllamaStreamEncoder(reply, received_ns=record.received, granted_ns=session.granted_ns)
    response = await session.respond(call, output, streamed=NDJSON if request.stream else None)
    if truncated != NOTHING_TRUNCATED:
        response.headers[HEADER] = header(truncated)
    return response


async def _engine_call(session: Session, request: OllamaRequest) -> tuple[EngineCall, Truncated]:
    """The engine's request: the conversation conformed, and cut to the context."""
    options = session.options(request.options)
    limit = session.limit(options) if request.truncate else 0
    call, truncated = await _cut_to_context(session, request, limit, kept_first(options))
    if truncated != NOTHING_TRUNCATED:
        tell(session.installed.name, limit, truncated)
    return session.stop_repetition(call, limited=sets_limit(options)), truncated


async def _cut_to_context(
    session: Session, request: OllamaRequest, limit: int, keep: int
) -> tuple[EngineCall, Truncated]:
    traits, prompts = session.traits, session.prompts
    name, length = session.served_name, session.context_length
    if isinstance(request, ChatRequest):
        call = chat_call(request, traits, served_name=name, context_length=length)
    else:
        call = generate_call(request, traits, served_name=name, context_length=length)
        if request.context and not request.suffix:
            call, _ = await fitted_in(prompts, call, traits.rules, limit=0)
            call, tokens = await prompts.going_on(
                call, request, begins=traits.writes_bos, limit=limit, keep=keep
            )
            return call, Truncated(tokens=tokens)
    call, messages = await fitted_in(prompts, call, traits.rules, limit=limit)
    return call, Truncated(messages=messages)


async def _rendered(
    session: Session, request: OllamaRequest, call: EngineCall, spelling: Spelling
) -> Response:
    """The response to `_debug_render_only`: the engine's prompt, in one object."""
    prompt = await session.prompts.text(call)
    start = encode.opening(request.model) + rfc3339(time.time_ns()).encode()
    body = encode.rendered(spelling, start, prompt, len(images_of(request)))
    return Response(body, content_type=JSON)


def _settled(request: OllamaRequest, spelling: Spelling, reason: str) -> Response:
    """The response to a request that only loads or unloads: one object, streaming or not."""
    start = encode.opening(request.model) + rfc3339(time.time_ns()).encode()
    return Response(encode.settled(spelling, start, reason), content_type=JSON)
