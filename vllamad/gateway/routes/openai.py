"""OpenAI's routes of generation under `/v1`, relayed."""

from __future__ import annotations

from quart import Response

from vllamad.gateway.context import Context
from vllamad.gateway.routes.relay import relayed
from vllamad.translate.engine.named_events import ResponsesPassthrough
from vllamad.translate.engine.request_fields import keeping_model_name
from vllamad.translate.openai import chat_fields
from vllamad.translate.openai.chat_replies import ChatReply, CompletionReply
from vllamad.translate.openai.responses import responses_request


async def openai_chat(context: Context) -> Response:
    """`POST /v1/chat/completions`."""
    return await relayed(
        context,
        "/v1/chat/completions",
        chat_fields.chat_request,
        needs=("completion", "chat"),
        answer=ChatReply,
    )


async def openai_completions(context: Context) -> Response:
    """`POST /v1/completions`: the prompt is used as it is, as vLLM has it."""
    return await relayed(
        context,
        "/v1/completions",
        chat_fields.completion_request,
        needs=("completion", "generate"),
        answer=CompletionReply,
    )


async def openai_responses(context: Context) -> Response:
    """`POST /v1/responses`."""
    return await relayed(
        context,
        "/v1/responses",
        keeping_model_name(responses_request),
        needs=("completion", "chat"),
        answer=ResponsesPassthrough,
    )
