"""A conversation cut to what the context holds, in a form its template accepts, and said so.

The engine's own tokenizer counts. What cannot be cut to fit is left to the engine to refuse.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec
import trio

from vllamad.gateway.inference.prompts import Prompts
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.protocol.lease import Granted
from vllamad.translate.conversation.cutting import (
    PICTURE,
    ChatMessage,
    Cuts,
    Search,
    without_pictures,
)
from vllamad.translate.conversation.roles import TemplateRules, conform
from vllamad.translate.go.json_decoder import is_list
from vllamad.translate.ollama.encode import Truncated
from vllamad.translate.ollama.to_engine import CHAT, EngineCall

log = logging.getLogger(__name__)

HEADER: Final = "X-Vllamad-Truncated"

_ROOM: Final = 1  # tokens at least left for the answer
_TEMPLATE: Final = 256  # bytes a template may add, where nothing is counted
_LARGE: Final = 1 << 17  # characters of a conversation that would hold up every stream
_MANY: Final = 500  # messages, likewise

T = TypeVar("T")


class Fitted(NamedTuple):
    """A call whose conversation its template accepts, and how many messages were dropped."""

    call: EngineCall
    dropped: int = 0


async def fitted_in(
    prompts: Prompts,
    call: EngineCall,
    rules: TemplateRules,
    *,
    limit: int,
) -> Fitted:
    """`call` with its conversation conformed, after its oldest turns are cut where it is too long.

    `limit` is tokens that prompt and answer have together, 0 for none: then nothing is cut. Raises
    WorkerLost where the engine is needed to count, and is gone.
    """
    messages = call.body.get("messages")
    if call.path != CHAT or not is_list(messages):
        return Fitted(call)
    given = msgspec.convert(messages, list[ChatMessage])
    conversation = _Conversation(prompts, call, given, rules)
    if not limit or len(given) < 2:
        return Fitted(await conversation.keeping(given))
    return await conversation.cut_to(limit)


def limit_of(grant: Granted, options: Mapping[str, object]) -> int:
    """Tokens that a prompt and its answer may have together; 0 where the worker does not say.

    It is the worker's context, or `num_ctx` where that is less.
    """
    wanted = _num_ctx(options)
    return min(wanted, grant.context_length or wanted) if wanted > _ROOM else grant.context_length


def tell(model: str, limit: int, truncated: Truncated) -> None:
    """Log how much of a conversation was dropped, and for which limit."""
    fields = {"context_length": limit, "dropped_messages": truncated.messages or None}
    fields |= {"dropped_tokens": truncated.tokens or None}
    event(
        log,
        logging.INFO,
        "conversation truncated",
        LogEvent.REQUEST_TRUNCATED,
        model=model,
        **fields,
    )


def header(truncated: Truncated) -> str:
    """The value of HEADER."""
    return ", ".join(f"{kind}={count}" for kind, count in truncated._asdict().items() if count)


def remark(remarked: set[str], model: str, grant: Granted, options: Mapping[str, object]) -> None:
    """Log that `num_ctx` is more than the worker's context, once for each model.

    No error, as in Ollama, but no reload either: a larger context has to be configured.
    """
    if model in remarked or not 0 < grant.context_length < _num_ctx(options):
        return
    remarked.add(model)
    told = {"num_ctx": _num_ctx(options), "context_length": grant.context_length}
    event(
        log,
        logging.INFO,
        "num_ctx exceeds the context",
        LogEvent.REQUEST_NUM_CTX_TOO_LARGE,
        model=model,
        **told,
    )


class _Conversation:
    """The messages of one call, cut by what an engine counts."""

    def __init__(
        self, prompts: Prompts, call: EngineCall, messages: list[ChatMessage], rules: TemplateRules
    ) -> None:
        self._prompts = prompts
        self._call = call
        self._messages = messages
        self._rules = rules
        self._continues = bool(call.body.get("continue_final_message"))
        self._large = len(messages) > _MANY or sum(map(_length, messages)) > _LARGE

    async def cut_to(self, limit: int) -> Fitted:
        """The smallest cut that leaves room for an answer."""
        cuts = await self._off_the_loop(self._cuts)
        # A token is at least one byte: short conversations need no counting.
        if cuts.size(0) + cuts.pictures(0) + _TEMPLATE < limit:
            return Fitted(await self.keeping(self._messages))
        search = Search(cuts, limit - _ROOM)
        while (cut := search.next()) is not None:
            search.record_count(cut, await self._count(cuts.kept(cut)))
        best = search.best
        return Fitted(await self.keeping(cuts.kept(best)), cuts.dropped(best))

    async def keeping(self, messages: list[ChatMessage]) -> EngineCall:
        """The call with these of its messages, conformed."""
        conformed = await self._off_the_loop(lambda: self._conformed(messages))
        if conformed is self._messages:
            return self._call
        return EngineCall(path=self._call.path, body=self._call.body | {"messages": conformed})

    def _cuts(self) -> Cuts:
        tools = self._call.body.get("tools")
        return Cuts(self._messages, len(msgspec.json.encode(tools)) if tools else 0)

    def _conformed(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        return conform(messages, self._rules, continues=self._continues)

    async def _count(self, messages: list[ChatMessage]) -> int | None:
        """How many tokens the engine makes of it, its template included; None if it refuses."""

        def text() -> tuple[list[ChatMessage], int]:
            bare = [without_pictures(message) for message in self._conformed(messages)]
            return [message for message, _ in bare], sum(pictures for _, pictures in bare)

        words, pictures = await self._off_the_loop(text)
        body = self._call.body | {"messages": words}
        count = await self._prompts.count(EngineCall(path=self._call.path, body=body))
        return None if count is None else count + PICTURE * pictures

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work) if self._large else work()


def _length(message: ChatMessage) -> int:
    """Characters of its text; the parts of any other content are not looked at."""
    content = message.get("content")
    return len(content) if isinstance(content, str) else 0


def _num_ctx(options: Mapping[str, object]) -> int:
    wanted = options.get("num_ctx")
    return int(wanted) if isinstance(wanted, int | float) else 0
