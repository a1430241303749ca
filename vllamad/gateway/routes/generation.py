"""generate and chat, and their /v1 forms: a request read, a worker leased, its answer relayed."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, TypeVar, cast

import trio
from quart import Response, current_app, g, request

from vllamad.errors import BadInput, EngineRefused, ModelNotFound, NotSupported, VllamadError
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference import leases
from vllamad.gateway.inference.leases import Lease
from vllamad.gateway.inference.model_lookup import find, traits_for, without_missing_parsers
from vllamad.gateway.inference.prompts import Prompts
from vllamad.gateway.inference.response_stream import (
    OllamaStreamEncoder,
    read_whole,
    send_request,
    stream_response,
)
from vllamad.gateway.inference.truncation import HEADER, fitted_in, header, limit_of, remark, tell
from vllamad.gateway.inference.upstream import ResponseTranslator
from vllamad.gateway.server.quart_glue import GatewayApp, hold_until_response_sent
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.models.installed import InstalledModel
from vllamad.translate.anthropic.messages import count_request, messages_request
from vllamad.translate.content.compression import IDENTITY, unpacked
from vllamad.translate.content.fill_in_middle import apply_fim
from vllamad.translate.conversation.relayed_requests import conform_request
from vllamad.translate.engine.fit_to_worker import (
    check_media,
    check_tools,
    fit_to_worker,
    take_answer_form,
)
from vllamad.translate.engine.model_defaults import add_model_defaults
from vllamad.translate.engine.named_events import MessagesPassthrough, ResponsesPassthrough
from vllamad.translate.engine.repetition import has_limit, stop_repetition
from vllamad.translate.engine.request_fields import LEFT_OUT, keeping_model_name
from vllamad.translate.go.json_decoder import is_list, is_object, quoted
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
    ModelTraits,
    chat_call,
    check,
    generate_call,
    images_of,
)
from vllamad.translate.openai import chat_fields
from vllamad.translate.openai.chat_replies import ChatReply, CompletionReply
from vllamad.translate.openai.passthrough import OpenAIPassthrough
from vllamad.translate.openai.responses import responses_request

log = logging.getLogger(__name__)

JSON: Final = "application/json; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"

WHOLE: Final = 1800.0  # seconds for an answer that the engine says nothing of before its end
_LARGE: Final = 1 << 17  # bytes of a body from which reading it would hold up every stream

_TOLD: Final = 256  # lines on kinds that are left out: clients may invent them

log = logging.getLogger(__name__)

Asked = ChatRequest | GenerateRequest
T = TypeVar("T")


async def generate(context: Context) -> Response:
    """`POST /api/generate`."""
    asked = await read(decode_generate)
    missing = ModelNotFound(f"model '{asked.model}' not found")
    installed = await find(context, asked.model, missing=missing)
    return await _answer(context, asked, installed, GENERATE)


async def chat(context: Context) -> Response:
    """`POST /api/chat`."""
    asked = await read(decode_chat)
    installed = await find(context, asked.model, missing=BadInput("model is required"))
    return await _answer(context, asked, installed, CHAT)


async def openai_chat(context: Context) -> Response:
    """`POST /v1/chat/completions`, relayed."""
    return await relayed(
        context,
        "/v1/chat/completions",
        chat_fields.chat_request,
        needs=("completion", "chat"),
        answer=ChatReply,
    )


async def openai_completions(context: Context) -> Response:
    """`POST /v1/completions`, relayed: the prompt is used as it is, as vLLM has it."""
    return await relayed(
        context,
        "/v1/completions",
        chat_fields.completion_request,
        needs=("completion", "generate"),
        answer=CompletionReply,
    )


async def openai_responses(context: Context) -> Response:
    """`POST /v1/responses`, relayed."""
    return await relayed(
        context,
        "/v1/responses",
        keeping_model_name(responses_request),
        needs=("completion", "chat"),
        answer=ResponsesPassthrough,
    )


async def anthropic_messages(context: Context) -> Response:
    """`POST /v1/messages`, relayed."""
    return await relayed(
        context,
        "/v1/messages",
        messages_request,
        needs=("completion", "chat"),
        answer=MessagesPassthrough,
    )


async def anthropic_count(context: Context) -> Response:
    """`POST /v1/messages/count_tokens`, relayed: counted by the model that would answer."""
    return await relayed(
        context,
        "/v1/messages/count_tokens",
        count_request,
        needs=("completion", "chat"),
        answer=MessagesPassthrough,
    )


async def read(decode: Callable[[bytes], T]) -> T:
    """The request's body, unpacked and decoded; a large one in a thread.

    Raises BadInput, and what `decode` raises.
    """
    body = await request.get_data(cache=False, as_text=False)
    assert isinstance(body, bytes)
    encoding = request.headers.get("Content-Encoding", IDENTITY).lower()
    try:
        if len(body) <= _LARGE and encoding == IDENTITY:
            return decode(body)
        limit, turn = request.max_content_length or 0, cast("GatewayApp", current_app).reading
        return await trio.to_thread.run_sync(_unpack, decode, body, encoding, limit, limiter=turn)
    except VllamadError as error:
        # Where it was raised holds the body, however large, until a collection comes by.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        raise
    finally:
        del body


def _unpack(decode: Callable[[bytes], T], body: bytes, encoding: str, limit: int) -> T:
    return decode(unpacked(body, encoding, limit))


async def _answer(
    context: Context, asked: Asked, installed: InstalledModel, spelling: Spelling
) -> Response:
    record: Record = g.record
    record.model = installed.name
    if asked.wants_unload:
        await leases.unload(context.settings.broker, installed.worker_name)
        return _settled(asked, spelling, "unload")
    traits = await traits_for(context, installed)
    check(asked, traits)
    lease = await acquire_lease(context, installed, asked.keep_alive)
    if (left := without_missing_parsers(traits, lease.grant)) is not traits:
        traits = left
        check(asked, traits)
    if asked.is_empty:
        return _settled(asked, spelling, "load")
    granted = time.monotonic_ns()
    options = traits.stored | asked.options
    remark(context.too_large, installed.name, lease.grant, options)
    call, truncated = await _call(context, asked, traits, lease)
    repetitions = context.settings.server.max_repetitions
    call = stop_repetition(call, repetitions, limited=sets_limit(options))
    if truncated != NOTHING_TRUNCATED:
        tell(installed.name, limit_of(lease.grant, options), truncated)
    if asked.debug_render_only:
        return await _rendered(context, asked, call, lease, spelling)
    reply = Reply(
        spelling,
        asked.model,
        stream=asked.stream,
        thinking=asked.think is not False,
        top_logprobs=asked.top_logprobs,
        muted=predicts_nothing(traits.stored, asked.options),
        truncated=truncated,
    )
    await hold_until_response_sent(recorded(record, reply))
    output = OllamaStreamEncoder(reply, received_ns=record.received, granted_ns=granted)
    answer = await _sent(context, call, lease, output, streamed=NDJSON if asked.stream else None)
    if truncated != NOTHING_TRUNCATED:
        answer.headers[HEADER] = header(truncated)
    return answer


async def _call(
    context: Context, asked: Asked, traits: ModelTraits, lease: Lease
) -> tuple[EngineCall, Truncated]:
    """What to ask the engine: the conversation conformed, and cut to the context."""
    grant, prompts = lease.grant, Prompts(lease.grant, context.limits.gap)
    name, length = grant.served_name, grant.context_length
    options = traits.stored | asked.options
    limit = limit_of(grant, options) if asked.truncate else 0
    if isinstance(asked, ChatRequest):
        call = chat_call(asked, traits, served_name=name, context_length=length)
    else:
        call = generate_call(asked, traits, served_name=name, context_length=length)
        if asked.context and not asked.suffix:
            call, _ = await fitted_in(prompts, call, traits.rules, limit=0)
            call, tokens = await prompts.going_on(
                call, asked, begins=traits.writes_bos, limit=limit, keep=kept_first(options)
            )
            return call, Truncated(tokens=tokens)
    call, messages = await fitted_in(prompts, call, traits.rules, limit=limit)
    return call, Truncated(messages=messages)


async def _rendered(
    context: Context, asked: Asked, call: EngineCall, lease: Lease, spelling: Spelling
) -> Response:
    """The reply to `_debug_render_only`: what the engine would be given, streaming or not."""
    prompt = await Prompts(lease.grant, context.limits.gap).text(call)
    start = encode.opening(asked.model) + rfc3339(time.time_ns()).encode()
    body = encode.rendered(spelling, start, prompt, len(images_of(asked)))
    return Response(body, content_type=JSON)


def _settled(asked: Asked, spelling: Spelling, reason: str) -> Response:
    """The reply to a request that only loads or unloads: one object, streaming or not."""
    start = encode.opening(asked.model) + rfc3339(time.time_ns()).encode()
    return Response(encode.settled(spelling, start, reason), content_type=JSON)


async def relayed(
    context: Context,
    path: str,
    decode: Callable[[bytes], tuple[str, dict[str, object] | BadInput]],
    *,
    needs: tuple[str, str],
    answer: type[OpenAIPassthrough] = OpenAIPassthrough,
) -> Response:
    """Relay an answer of the engine's own, in pieces or at once.

    `needs` is the capability it takes, and what to call it in a refusal; `answer` knows the API.
    """
    record: Record = g.record
    name, body = await read(decode)
    installed = await find(context, name, missing=BadInput("model is required"))
    record.model = installed.name
    if isinstance(body, BadInput):
        raise body
    _log_left_out(context, installed.name, path, body.pop(LEFT_OUT, None))
    capability, wanted = needs
    if capability not in installed.capabilities:
        raise NotSupported(f"{quoted(name)} does not support {wanted}")
    traits = await traits_for(context, installed)
    check_tools(body, traits)
    check_media(body, traits)
    body = apply_fim(body, traits.fim, traits.full_name)
    lease = await acquire_lease(context, installed, None)
    traits = without_missing_parsers(traits, lease.grant)
    check_tools(body, traits)
    served, length = lease.grant.served_name, lease.grant.context_length
    body = add_model_defaults(path, body, installed.overlay, length, traits.stored)
    body = conform_request(path, body, traits.rules)
    body, form = take_answer_form(
        fit_to_worker(body, traits, served_name=served, context_length=length)
    )
    stream = body.get("stream") is True
    usage = False
    if stream:
        options = body.get("stream_options")
        options = options if is_object(options) else {}
        usage = options.get("include_usage") is True
        body["stream_options"] = options | {"include_usage": True}
    output = answer(stream=stream, served_name=served, requested_name=name, usage=usage, form=form)
    await hold_until_response_sent(recorded(record, output))
    repetitions = context.settings.server.max_repetitions
    call = EngineCall(path=path, body=body)
    call = stop_repetition(call, repetitions, limited=has_limit(body, length))
    return await _sent(context, call, lease, output, streamed=SSE if stream else None)


def _log_left_out(context: Context, model: str, route: str, kinds: object) -> None:
    """Log which kinds of tools and content are left out, once for each model and route."""
    logged = context.left_out
    for kind in map(str, kinds if is_list(kinds) else ()):
        if (model, route, kind) not in logged and len(logged) < _TOLD:
            logged.add((model, route, kind))
            fields = {"model": model, "route": route, "kind": kind}
            event(
                log,
                logging.INFO,
                "ignored in a request",
                LogEvent.REQUEST_ITEM_IGNORED,
                **fields,
            )


async def acquire_lease(
    context: Context, installed: InstalledModel, keep_alive: float | None
) -> Lease:
    """A lease for as long as the answer takes, the client's reading of it included."""
    record: Record = g.record
    wanted = leases.lease(context.settings.broker, installed.name, keep_alive, record.request_id)
    return await hold_until_response_sent(wanted)


async def _sent(
    context: Context,
    call: EngineCall,
    lease: Lease,
    output: ResponseTranslator,
    *,
    streamed: str | None,
) -> Response:
    """The engine's answer, in pieces of content type `streamed`, or at once as JSON."""
    endpoint, revoked, limits = lease.grant.endpoint, lease.revoked, context.limits
    if not call.body.get("stream"):
        limits = replace(limits, first=WHOLE)
    body = call.encode()
    try:
        asked = await send_request(
            endpoint, call.path, body, output, revoked=revoked, limits=limits
        )
        if streamed is None:
            return Response(await read_whole(asked), content_type=JSON)
        return await stream_response(asked, streamed)
    except EngineRefused as error:
        raise (call.blamed_for(error) or error) from None


@asynccontextmanager
async def recorded(record: Record, reply: Reply | OpenAIPassthrough) -> AsyncGenerator[None]:
    """Write the record when the answer is over, with what only its end tells."""
    record.streams = True
    try:
        yield
    finally:
        record.prompt_tokens, record.completion_tokens = (
            reply.prompt_tokens,
            reply.completion_tokens,
        )
        if reply.failed is not None:
            record.error = reply.failed.kind
        record.write()
