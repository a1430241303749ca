"""What the engine makes of a conversation before it answers: its tokens, and their text."""

from __future__ import annotations

from contextlib import closing
from typing import TypeVar

import msgspec
import trio

from vllamad.errors import WorkerLost
from vllamad.gateway.exchange import silent
from vllamad.host.http_client import post
from vllamad.wire.broker import Granted
from vllamad.wire.ollama import GenerateRequest
from vllamad.wire.refusals import STOPPED, engine_refusal
from vllamad.wire.requests import EngineCall

# What of a chat request decides how it is rendered.
_RENDERING = frozenset({
    "add_generation_prompt", "chat_template_kwargs", "continue_final_message", "messages", "model",
    "tools",
})  # fmt: skip

T = TypeVar("T")


class _Tokens(msgspec.Struct):
    tokens: list[int]


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
        self, call: EngineCall, asked: GenerateRequest, *, begins: bool
    ) -> EngineCall:
        """`call` as the continuation of the token ids in `asked.context`.

        `begins` says that the template writes the token of a text's beginning, which belongs there
        only once.
        """
        turn = await self._tokens(call)
        return call.going_on([*asked.context, *turn[begins:]], asked)

    async def _tokens(self, call: EngineCall) -> list[int]:
        asked = {key: value for key, value in call.body.items() if key in _RENDERING}
        return (await self._told("/tokenize", asked, _Tokens)).tokens

    async def _told(self, path: str, asked: dict[str, object], kind: type[T]) -> T:
        with trio.move_on_after(self._limit):
            answer = await post(self._grant.endpoint, path, msgspec.json.encode(asked))
            with closing(answer):
                return _read(answer.status, await answer.read(), kind)
        raise silent()


def _read(status: int, said: bytes, kind: type[T]) -> T:
    if status != 200:
        raise engine_refusal(status, said)
    try:
        return msgspec.json.decode(said, type=kind)
    except msgspec.DecodeError as error:
        raise WorkerLost(STOPPED) from error
