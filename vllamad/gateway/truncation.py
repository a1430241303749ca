"""A conversation cut to what the context holds, as Ollama cuts it: the oldest messages go.

The engine's own tokenizer counts. What cannot be cut to fit is left to the engine to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx
import msgspec

from vllamad.errors import WorkerLost
from vllamad.wire.broker import Granted
from vllamad.wire.conversation import keep_newest
from vllamad.wire.gojson import is_list
from vllamad.wire.refusals import STOPPED
from vllamad.wire.requests import CHAT, EngineCall

_ROOM: Final = 1  # tokens at least left for the answer
_TEMPLATE: Final = 256  # bytes a template may add, where nothing is counted


class _Count(msgspec.Struct):
    count: int


async def shortened(
    engine: httpx.AsyncClient, grant: Granted, call: EngineCall, options: Mapping[str, object]
) -> EngineCall:
    """`call` with as many of its newest messages as fit; system messages and the last one stay.

    The limit is the worker's context, or `num_ctx` where that is less.
    """
    messages = call.body.get("messages")
    if call.path != CHAT or not is_list(messages) or len(messages) < 2:
        return call
    wanted = options.get("num_ctx")
    limit = grant.context_length
    if isinstance(wanted, int | float) and wanted > _ROOM:
        limit = min(limit, int(wanted))
    # A token is at least one byte: short conversations need no counting.
    if len(msgspec.json.encode(messages)) + _TEMPLATE < limit:
        return call
    return await _longest_that_fits(engine, grant, call, limit)


async def _longest_that_fits(
    engine: httpx.AsyncClient, grant: Granted, call: EngineCall, limit: int
) -> EngineCall:
    """Halve the search: a conversation of a thousand messages is counted ten times."""
    low, high = 1, len(_messages(call))
    while low < high:
        middle = (low + high + 1) // 2
        if await _count(engine, grant, _keeping(call, middle)) + _ROOM <= limit:
            low = middle
        else:
            high = middle - 1
    return _keeping(call, low)


def _keeping(call: EngineCall, count: int) -> EngineCall:
    return EngineCall(
        path=call.path, body=call.body | {"messages": keep_newest(_messages(call), count)}
    )


def _messages(call: EngineCall) -> list[dict[str, object]]:
    return msgspec.convert(call.body["messages"], list[dict[str, object]])


async def _count(engine: httpx.AsyncClient, grant: Granted, call: EngineCall) -> int:
    """How many tokens the engine makes of it, its template included. Raises WorkerLost."""
    kept = ("model", "messages", "tools", "add_generation_prompt", "continue_final_message")
    body = {key: value for key, value in call.body.items() if key in kept}
    answer = await engine.post(
        "/tokenize",
        content=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
        extensions={"uds": grant.endpoint},
    )
    if answer.status_code != 200:
        return 0  # whatever is wrong with it, the engine says so when it is asked to answer
    try:
        return msgspec.json.decode(answer.content, type=_Count).count
    except msgspec.DecodeError as error:
        raise WorkerLost(STOPPED) from error
