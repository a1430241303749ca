"""What is cut off a conversation, by the count of an engine on a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw_engine import Exchange, raw_engine
from vllamad.errors import WorkerLost
from vllamad.gateway.inference.prompts import Prompts
from vllamad.gateway.inference.truncation import fitted_in, limit_of
from vllamad.protocol.lease import Granted
from vllamad.translate.conversation.roles import ACCEPTS_ALL
from vllamad.translate.ollama.to_engine import CHAT, COMPLETIONS, EngineCall

WORDS = 100  # in each message of ours, and to the counting engine a word is a token


class Tokenizer:
    """Counts the words of all contents, and a fixed number for the tools.

    A strict one renders no conversation whose turns do not alternate, or that begins with the
    assistant's.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.says: tuple[int, bytes] | None = None
        self.strict = False

    async def answer(self, exchange: Exchange) -> None:
        head, _, body = exchange.request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /tokenize ")
        asked = json.loads(body)
        self.asked.append(asked)
        count = sum(len(message["content"].split()) for message in asked["messages"])
        count += 200 if asked.get("tools") else 0
        status, said = self.says or (200, json.dumps({"count": count}).encode())
        if self.strict and not alternates(asked["messages"]):
            status, said = 400, b'{"error":{"message":"Conversation roles must alternate"}}'
        await exchange.say(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(said)))
        await exchange.say(said)


class House:
    def __init__(self, endpoint: Path, tokenizer: Tokenizer) -> None:
        self.endpoint = endpoint
        self.tokenizer = tokenizer

    async def shortened(self, call: EngineCall, context: int) -> EngineCall:
        grant = Granted(endpoint=str(self.endpoint), served_name="a", context_length=context)
        prompts = Prompts(grant, 10)
        short, dropped = await fitted_in(prompts, call, ACCEPTS_ALL, limit=context)
        before: Any = call.body.get("messages", [])
        after: Any = short.body.get("messages", [])
        assert dropped == len(before) - len(after)
        return short


def alternates(messages: list[dict[str, Any]]) -> bool:
    roles = [message["role"] for message in messages if message["role"] != "system"]
    return roles == [("user", "assistant")[at % 2] for at in range(len(roles))]


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    tokenizer = Tokenizer()
    async with raw_engine(folder / "s", tokenizer.answer):
        yield House(folder / "s", tokenizer)


def conversation(turns: int, *, system: bool = False, **more: object) -> EngineCall:
    """A chat of `turns` messages numbered from 0, each of 100 words."""
    messages = [{"role": "system", "content": "be brief"}] if system else []
    for number in range(turns):
        role = "assistant" if number % 2 else "user"
        messages.append({"role": role, "content": f"{number} " + "word " * (WORDS - 1)})
    return EngineCall(path=CHAT, body={"model": "a", "messages": messages, "stream": True, **more})


def with_pictures(call: EngineCall) -> EngineCall:
    """The same with a picture in each message, as large as pictures are."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    messages: Any = [
        message | {"content": [{"type": "text", "text": message["content"]}, picture]}
        for message in call.body["messages"]  # type: ignore[attr-defined]
    ]
    return EngineCall(path=CHAT, body=call.body | {"messages": messages})


async def test_a_picture_counts_as_in_ollama_and_is_not_sent_to_be_counted(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = with_pictures(conversation(3))
        assert len((await one.shortened(call, 3 * 868)).body["messages"]) == 1  # type: ignore[arg-type]
        assert await one.shortened(call, 3 * 868 + 1) is call
        assert len(one.tokenizer.asked) > 1
        assert all("AAAA" not in json.dumps(asked) for asked in one.tokenizer.asked)


def turns_of(call: EngineCall) -> list[str]:
    messages: Any = call.body["messages"]
    return [message["content"].split()[0] for message in messages]


@pytest.mark.parametrize(
    ("context", "kept"),
    [
        (2000, ["0", "1", "2", "3", "4"]),
        (501, ["0", "1", "2", "3", "4"]),
        (500, ["2", "3", "4"]),  # a turn goes whole
        (301, ["2", "3", "4"]),
        (300, ["4"]),
        (101, ["4"]),
        (50, ["4"]),  # the last one stays, for the engine to refuse
    ],
)
@pytest.mark.case("F1")
async def test_the_oldest_turns_go_until_the_rest_and_one_token_fit(
    tmp_path: Path, context: int, kept: list[str]
) -> None:
    async with house(tmp_path) as one:
        assert turns_of(await one.shortened(conversation(5), context)) == kept


async def test_system_messages_stay(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        short = await one.shortened(conversation(5, system=True), 302 + 1)
    assert turns_of(short) == ["be", "2", "3", "4"]


async def test_nothing_else_of_the_call_is_touched(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = conversation(5, temperature=0.5)
        short = await one.shortened(call, 150)
    assert short.body == call.body | {"messages": short.body["messages"]}
    assert len(turns_of(call)) == 5


@pytest.mark.parametrize(
    ("context", "num_ctx", "limit"),
    [
        (2000, 301, 301),
        (2000, 301.9, 301),
        (301, 2000, 301),
        (0, 301, 301),
        (301, 0, 301),
        (301, -1, 301),
        (301, "many", 301),
        (301, None, 301),
        (0, None, 0),
    ],
)
def test_the_limit_is_the_workers_context_or_num_ctx_where_that_is_less(
    context: int, num_ctx: object, limit: int
) -> None:
    grant = Granted(endpoint="", served_name="a", context_length=context)
    assert limit_of(grant, {"num_ctx": num_ctx}) == limit


async def test_where_no_limit_is_known_nothing_is_cut(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = conversation(5)
        assert await one.shortened(call, 0) is call
        assert one.tokenizer.asked == []


async def test_tools_take_room_too(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        short = await one.shortened(conversation(5, tools=[{"type": "function"}]), 501)
    assert turns_of(short) == ["2", "3", "4"]


async def test_long_tools_are_counted_though_the_conversation_is_short(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = conversation(2, tools=[{"description": "x" * 5000}])
        assert turns_of(await one.shortened(call, 2000)) == ["0", "1"]
        assert len(one.tokenizer.asked) == 1


@pytest.mark.parametrize(
    "call",
    [
        conversation(1),
        EngineCall(path=COMPLETIONS, body={"model": "a", "prompt": "word " * 1000}),
        EngineCall(path=CHAT, body={"model": "a", "messages": "none"}),
    ],
)
async def test_what_cannot_be_cut_is_not_counted(tmp_path: Path, call: EngineCall) -> None:
    async with house(tmp_path) as one:
        assert await one.shortened(call, 10) is call
        assert one.tokenizer.asked == []


async def test_what_surely_fits_is_not_counted(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = conversation(5)
        assert await one.shortened(call, 4000) is call
        assert one.tokenizer.asked == []


async def test_what_fits_as_a_whole_is_counted_once(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        call = conversation(5)
        assert await one.shortened(call, 501) is call
        assert len(one.tokenizer.asked) == 1


async def test_a_long_conversation_is_counted_a_few_times(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        short = await one.shortened(conversation(9_999), 5001)
        assert len(turns_of(short)) == 49  # turns of two, and the newest message
        assert len(one.tokenizer.asked) <= 4
        longest = max(len(asked["messages"]) for asked in one.tokenizer.asked)
        assert longest < 100, "the whole is never counted where it is far too long"


async def test_the_engine_is_told_what_changes_the_count_and_no_more(tmp_path: Path) -> None:
    more = {"continue_final_message": True, "add_generation_prompt": False}
    async with house(tmp_path) as one:
        await one.shortened(conversation(2, system=False, temperature=0.5, **more), 210)
        assert set(one.tokenizer.asked[0]) == {"model", "messages", *more}


@pytest.mark.case("F1")
async def test_what_the_engine_cannot_count_is_left_to_it_to_refuse(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.tokenizer.says = (400, b'{"error":{"message":"what?"}}')
        call = conversation(5)
        assert await one.shortened(call, 200) is call
        assert len(one.tokenizer.asked) == 1


@pytest.mark.case("F1")
@pytest.mark.parametrize("context", range(60, 3000, 97))
@pytest.mark.parametrize("system", [False, True])
async def test_a_strict_template_gets_what_it_accepts(
    tmp_path: Path, context: int, system: bool
) -> None:
    async with house(tmp_path) as one:
        one.tokenizer.strict = True
        whole = conversation(25, system=system)
        short = await one.shortened(whole, context)
    messages: Any = short.body["messages"]
    assert alternates(messages)
    assert turns_of(short)[-1] == "24"
    others = [message for message in messages if message["role"] != "system"]
    assert system == (len(others) < len(messages))
    fit = (context - 1 - 2 * system) // WORDS
    assert len(others) == max(1, min(25, fit - 1 + fit % 2)), "as many turns as there is room for"


@pytest.mark.case("F1")
async def test_a_call_and_its_result_stay_or_go_together(tmp_path: Path) -> None:
    words = "word " * WORDS
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for at in range(30):
        call = {"id": f"c{at}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": words, "tool_call_id": f"c{at}"})
    async with house(tmp_path) as one:
        short = await one.shortened(EngineCall(path=CHAT, body={"messages": messages}), 1002)
    kept: Any = short.body["messages"]
    assert kept == [messages[0], *messages[-20:]], "ten of thirty, and the user's message"


async def test_an_engine_that_counts_nonsense_is_lost(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.tokenizer.says = (200, b"[]")
        with pytest.raises(WorkerLost):
            await one.shortened(conversation(5), 10)


async def test_an_engine_that_is_gone_is_lost(tmp_path: Path) -> None:
    with pytest.raises(WorkerLost):
        await House(tmp_path / "nobody", Tokenizer()).shortened(conversation(5), 10)
