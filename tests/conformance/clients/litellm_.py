"""litellm's two providers: `ollama/`, on /api/generate with a prompt it writes itself, and
`ollama_chat/`, on /api/chat.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import litellm
from answers import Answer
from kit import (
    ASK_JSON,
    EMBEDDER,
    ENDLESS,
    MESSAGES,
    MISSING,
    MODEL,
    PIRATE,
    TEXTS,
    URL,
    WEATHER,
    drive,
    feature,
    is_let_go,
    is_served,
    lacks,
    lets_go,
    refused,
)

PROVIDER = sys.argv[2]
NAME = f"{PROVIDER}/{MODEL}"
GREEDY = {"model": NAME, "messages": MESSAGES, "api_base": URL, "temperature": 0, "max_tokens": 40}
SHORT = {**GREEDY, "max_tokens": 5}


def is_answer(text: str | None) -> None:
    """Any words: what this model makes of the prompt litellm writes is not our matter."""
    assert (text or "").strip(), repr(text)


@feature("show")
def _() -> None:
    told = litellm.get_model_info(NAME, api_base=URL)
    assert told["max_tokens"] == 8192, told


@feature("chat", shows=is_answer)
def _() -> object:
    answer = litellm.completion(**GREEDY)
    assert answer.choices[0].finish_reason in ("stop", "length")
    return answer.choices[0].message.content


@feature("chat, streamed", shows=is_answer)
def _() -> object:
    chunks = list(litellm.completion(**GREEDY, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@feature("system message")
def _() -> None:
    without = litellm.completion(**SHORT).usage.prompt_tokens
    told = litellm.completion(**{**SHORT, "messages": [PIRATE, *MESSAGES]})
    assert told.usage.prompt_tokens != without


@feature("token counts")
def _() -> None:
    usage = litellm.completion(**SHORT).usage
    assert usage.completion_tokens == 5
    assert usage.prompt_tokens
    chunks = litellm.completion(**SHORT, stream=True, stream_options={"include_usage": True})
    [told] = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert told.completion_tokens == 5


@feature("seed")
def _() -> object:
    told = {**SHORT, "temperature": 1.5, "seed": 7, "max_tokens": 20}
    return [litellm.completion(**told).choices[0].message.content for _ in "12"]


@feature("limit of tokens")
def _() -> None:
    answer = litellm.completion(**SHORT)
    assert answer.usage.completion_tokens == 5
    if PROVIDER == "ollama_chat":  # the other one says "stop" whatever the reason was
        assert answer.choices[0].finish_reason == "length"


@feature("stop strings", shows=lacks("a"))
def _() -> object:
    answer = litellm.completion(**{**GREEDY, "max_tokens": 60}, stop=["a"])
    return answer.choices[0].message.content or ""


@feature("JSON schema")
def _() -> None:
    answer = litellm.completion(**{**GREEDY, "max_tokens": 200}, response_format=Answer)
    Answer.model_validate_json(answer.choices[0].message.content)


@feature("JSON mode")
def _() -> object:
    told = {**GREEDY, "messages": [{"role": "user", "content": ASK_JSON}]}
    answer = litellm.completion(**told, response_format={"type": "json_object"})
    return answer.choices[0].message.content


if PROVIDER == "ollama_chat":  # the other one writes the tools into its prompt

    @feature("tools refused")
    def _() -> None:
        with refused(litellm.BadRequestError, "does not support tools"):
            litellm.completion(**SHORT, tools=[WEATHER])


@feature("embed one")
def _() -> object:
    answer = litellm.embedding(f"ollama/{EMBEDDER}", input=[TEXTS[0]], api_base=URL)
    return answer.data[0]["embedding"]


@feature("embed many")
def _() -> object:
    answer = litellm.embedding(f"ollama/{EMBEDDER}", input=TEXTS, api_base=URL)
    assert answer.usage.prompt_tokens
    return [entry["embedding"] for entry in answer.data]


@feature("model not found")
def _() -> None:
    with refused(litellm.NotFoundError, MISSING, "not found", status=404):
        litellm.completion(**{**SHORT, "model": f"{PROVIDER}/{MISSING}"})


LONG = {**GREEDY, "messages": [{"role": "user", "content": ENDLESS}], "max_tokens": 4000}


@feature("cancel", shows=lets_go(is_answer))
def _() -> Iterator[object]:
    stream = litellm.completion(**LONG, stream=True)
    yield next(stream)
    del stream  # there is no other way
    yield
    yield litellm.completion(**GREEDY).choices[0].message.content


@feature("async", shows=is_answer)
async def _() -> object:
    return (await litellm.acompletion(**GREEDY)).choices[0].message.content


@feature("async, streamed", shows=is_answer)
async def _() -> object:
    stream = await litellm.acompletion(**GREEDY, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@feature("async, cancel")
async def _() -> None:
    stream = await litellm.acompletion(**LONG, stream=True)
    await anext(aiter(stream))
    is_served()
    await stream.aclose()
    await asyncio.to_thread(is_let_go)
    is_answer((await litellm.acompletion(**GREEDY)).choices[0].message.content)


@feature("async, embed")
async def _() -> object:
    answer = await litellm.aembedding(f"ollama/{EMBEDDER}", input=TEXTS, api_base=URL)
    return [entry["embedding"] for entry in answer.data]


@feature("in parallel")
def _() -> object:
    return lambda: litellm.completion(**SHORT).usage.completion_tokens


drive()
