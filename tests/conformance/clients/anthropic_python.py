"""Anthropic's own Python client, on /v1/messages."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
from kit import ENDLESS, MESSAGES, MISSING, MODEL, PIRATE, URL, WEATHER, drive, feature, refused

KEYS = {"base_url": URL, "api_key": "any"}
client = anthropic.Anthropic(**KEYS)
GREEDY = {
    "model": MODEL,
    "messages": MESSAGES,
    "max_tokens": 60,
    "extra_body": {"temperature": 0},  # Anthropic's newest models have none, so neither has it
}
SHORT = {**GREEDY, "max_tokens": 5}
TOOL = {
    "name": WEATHER["function"]["name"],
    "description": WEATHER["function"]["description"],
    "input_schema": WEATHER["function"]["parameters"],
}


@feature("chat")
def _() -> object:
    answer = client.messages.create(**GREEDY)
    assert (answer.role, answer.stop_reason, answer.model) == ("assistant", "end_turn", MODEL)
    return answer.content[0].text


@feature("chat, streamed")
def _() -> object:
    with client.messages.stream(**GREEDY) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert answer.content[0].text == text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens
    return text


@feature("system message")
def _() -> None:
    without = client.messages.create(**SHORT).usage.input_tokens
    words = PIRATE["content"]
    told = client.messages.create(**SHORT, system=words).usage.input_tokens
    blocks = client.messages.create(**SHORT, system=[{"type": "text", "text": words}]).usage
    assert told != without
    assert blocks.input_tokens == told


@feature("token counts")
def _() -> None:
    usage = client.messages.create(**SHORT).usage
    assert (usage.input_tokens, usage.output_tokens) == (37, 5)


@feature("count tokens")
def _() -> None:
    assert client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens == 37


@feature("limit of tokens")
def _() -> None:
    assert client.messages.create(**SHORT).stop_reason == "max_tokens"


@feature("stop strings")
def _() -> object:
    answer = client.messages.create(**GREEDY, stop_sequences=["Paris"])
    assert answer.stop_reason == "stop_sequence"
    return "".join(block.text for block in answer.content)


@feature("tools refused")
def _() -> None:
    with refused(anthropic.BadRequestError, "tool", status=400):
        client.messages.create(**SHORT, tools=[TOOL])


@feature("model not found")
def _() -> None:
    with refused(anthropic.NotFoundError, MISSING, "not found", status=404):
        client.messages.create(**{**SHORT, "model": MISSING})


@feature("cancel")
def _() -> Iterator[object]:
    endless = [{"role": "user", "content": ENDLESS}]
    stream = client.messages.create(model=MODEL, messages=endless, max_tokens=4000, stream=True)
    yield next(iter(stream))
    yield stream.close()
    yield client.messages.create(**GREEDY).content[0].text


@feature("async")
async def _() -> object:
    async with anthropic.AsyncAnthropic(**KEYS) as other:
        return (await other.messages.create(**GREEDY)).content[0].text


@feature("async, streamed")
async def _() -> object:
    async with (
        anthropic.AsyncAnthropic(**KEYS) as other,
        other.messages.stream(**GREEDY) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


@feature("in parallel")
def _() -> object:
    return lambda: client.messages.create(**SHORT).usage.output_tokens


drive()
