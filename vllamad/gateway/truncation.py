"""A conversation cut to what the context holds, as Ollama cuts it: the oldest messages go.

The engine's own tokenizer counts. What cannot be cut to fit is left to the engine to refuse.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from typing import Final

import msgspec

from vllamad.errors import WorkerLost
from vllamad.host.http_client import post
from vllamad.host.log import event
from vllamad.wire.broker import Granted
from vllamad.wire.conversation import keep_newest, without_pictures
from vllamad.wire.gojson import is_list
from vllamad.wire.refusals import STOPPED
from vllamad.wire.requests import CHAT, EngineCall

log = logging.getLogger(__name__)

_ROOM: Final = 1  # tokens at least left for the answer
_TEMPLATE: Final = 256  # bytes a template may add, where nothing is counted
_PICTURE: Final = 768  # tokens that Ollama counts a picture as, whatever is on it


class _Count(msgspec.Struct):
    count: int


async def shortened(grant: Granted, call: EngineCall, options: Mapping[str, object]) -> EngineCall:
    """`call` with as many of its newest messages as fit; system messages and the last one stay.

    The limit is the worker's context, or `num_ctx` where that is less.
    """
    messages = call.body.get("messages")
    if call.path != CHAT or not is_list(messages) or len(messages) < 2:
        return call
    limit = _limit(grant, options)
    # A token is at least one byte: short conversations need no counting.
    size = len(msgspec.json.encode([messages, call.body.get("tools")]))
    if not limit or size + _TEMPLATE < limit:
        return call
    return await _longest_that_fits(grant, call, limit)


def remark(remarked: set[str], model: str, grant: Granted, options: Mapping[str, object]) -> None:
    """Log that `num_ctx` is more than the worker's context, once for each model.

    No error, as in Ollama, but no reload either: whoever wants more has to configure it.
    """
    if model in remarked or not 0 < grant.context_length < _num_ctx(options):
        return
    remarked.add(model)
    told = {"num_ctx": _num_ctx(options), "context_length": grant.context_length}
    event(log, logging.INFO, "num_ctx larger than the context", model=model, **told)


def _limit(grant: Granted, options: Mapping[str, object]) -> int:
    """Tokens that a prompt and its answer may have together; 0 where nobody knows."""
    wanted = _num_ctx(options)
    return min(wanted, grant.context_length or wanted) if wanted > _ROOM else grant.context_length


def _num_ctx(options: Mapping[str, object]) -> int:
    wanted = options.get("num_ctx")
    return int(wanted) if isinstance(wanted, int | float) else 0


async def _longest_that_fits(grant: Granted, call: EngineCall, limit: int) -> EngineCall:
    """The whole if it fits; else halve the search: a thousand messages are counted ten times."""

    async def fits(cut: EngineCall) -> bool:
        return await _count(grant, cut) + _ROOM <= limit

    if await fits(call):
        return call
    low, high = 1, len(_messages(call)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if await fits(_keeping(call, middle)):
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


async def _count(grant: Granted, call: EngineCall) -> int:
    """How many tokens the engine makes of it, its template included. Raises WorkerLost."""
    kept = ("model", "tools", "add_generation_prompt", "continue_final_message")
    messages, pictures = without_pictures(_messages(call))
    body = {key: value for key, value in call.body.items() if key in kept} | {"messages": messages}
    with closing(await post(grant.endpoint, "/tokenize", msgspec.json.encode(body))) as answer:
        said = await answer.read()
    if answer.status != 200:
        return 0  # whatever is wrong with it, the engine says so when it is asked to answer
    try:
        return msgspec.json.decode(said, type=_Count).count + _PICTURE * pictures
    except msgspec.DecodeError as error:
        raise WorkerLost(STOPPED) from error
