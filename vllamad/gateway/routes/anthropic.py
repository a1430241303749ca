"""Anthropic's routes under `/v1`, relayed."""

from __future__ import annotations

from quart import Response

from vllamad.gateway.context import Context
from vllamad.gateway.routes.relay import relayed
from vllamad.translate.anthropic.messages import count_request, messages_request
from vllamad.translate.engine.named_events import MessagesPassthrough


async def anthropic_messages(context: Context) -> Response:
    """`POST /v1/messages`."""
    return await relayed(
        context,
        "/v1/messages",
        messages_request,
        needs=("completion", "chat"),
        answer=MessagesPassthrough,
    )


async def anthropic_count(context: Context) -> Response:
    """`POST /v1/messages/count_tokens`: counted by the model that would answer."""
    return await relayed(
        context,
        "/v1/messages/count_tokens",
        count_request,
        needs=("completion", "chat"),
        answer=MessagesPassthrough,
    )
