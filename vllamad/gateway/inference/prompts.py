"""What the engine makes of a conversation before it answers: its tokens, and their text."""

from __future__ import annotations

from contextlib import closing
from typing import TypeVar

import msgspec
import trio

from vllamad.errors import EngineRefused, WorkerLost
from vllamad.gateway.inference.upstream import engine_timeout, noted
from vllamad.http.engine_client import post_to_engine
from vllamad.protocol.lease import Granted
from vllamad.translate.conversation.cutting import cut_context
from vllamad.translate.error_bodies import STOPPED, engine_refusal
from vllamad.translate.ollama.request import GenerateRequest
from vllamad.translate.ollama.to_engine import EngineCall

# What of a chat request decides how it is rendered.
_RENDERING = frozenset({
    "add_generation_prompt", "chat_template_kwargs", "continue_final_message", "messages", "model",
    "tools",
})  # fmt: skip

T = TypeVar("T")


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Count(msgspec.Struct):
    count: int


class _Text(msgspec.Struct):
    prompt: str


class Prompts:
    """One engine, asked for at most `limit` seconds; all of it raises EngineRefused, WorkerLost."""

    def __init__(self, grant: Granted, limit: float) -> None:
        self._grant = grant
        self._limit = limit

    async def text(self, call: EngineCall) -> str:
        """The text that the engine would go on with."""
        prompt = call.body.get("prompt")
        if isinstance(prompt, str):
            return prompt
        tokens = await self._tokens(call) if prompt is None else prompt
        asked: dict[str, object] = {"model": self._grant.served_name, "tokens": tokens}
        return (await self._told("/detokenize", asked, _Text)).prompt

    async def going_on(
        self, call: EngineCall, asked: GenerateRequest, *, begins: bool, limit: int, keep: int
    ) -> tuple[EngineCall, int]:
        """`call` as the continuation of the token ids in `asked.context`, and how many were cut.

        `begins` says that the template writes the token of a text's beginning, which belongs there
        only once. `limit` is tokens that prompt and answer have together, 0 for no limit; beyond it
        the oldest ids but the first `keep` go.
        """
        turn = (await self._tokens(call))[begins:]
        context = asked.context
        if limit:
            context = cut_context(context, limit - len(turn) - 1, keep)  # one is the answer's
        return call.continue_from_tokens([*context, *turn], asked), len(asked.context) - len(
            context
        )

    async def count(self, call: EngineCall) -> int | None:
        """How many tokens the engine makes of `call`; None where it refuses to render it."""
        try:
            return (await self._told("/tokenize", _rendering(call), _Count)).count
        except EngineRefused:
            return None

    async def count_text(self, text: str) -> int:
        """How many tokens a text has, with those that the tokenizer puts around it."""
        asked: dict[str, object] = {"model": self._grant.served_name, "prompt": text}
        return (await self._told("/tokenize", asked, _Count)).count

    async def _tokens(self, call: EngineCall) -> list[int]:
        return (await self._told("/tokenize", _rendering(call), _Tokens)).tokens

    async def _told(self, path: str, asked: dict[str, object], kind: type[T]) -> T:
        with trio.move_on_after(self._limit):
            answer = await post_to_engine(self._grant.endpoint, path, msgspec.json.encode(asked))
            with closing(answer):
                return _read(answer.status, await answer.read(), kind)
        raise engine_timeout()


def _rendering(call: EngineCall) -> dict[str, object]:
    return {key: value for key, value in call.body.items() if key in _RENDERING}


def _read(status: int, said: bytes, kind: type[T]) -> T:
    if status != 200:
        raise noted(engine_refusal(status, said))
    try:
        return msgspec.json.decode(said, type=kind)
    except msgspec.DecodeError as error:
        raise WorkerLost(STOPPED) from error
