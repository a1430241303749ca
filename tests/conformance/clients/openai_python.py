"""OpenAI's own Python client, on /v1."""

from __future__ import annotations

from collections.abc import Iterator

import openai
from answers import Answer
from kit import (
    ASK_JSON,
    EMBEDDER,
    ENDLESS,
    MESSAGES,
    MISSING,
    MODEL,
    PIRATE,
    QUESTION,
    TEXTS,
    URL,
    WEATHER,
    are_alike,
    drive,
    feature,
    refused,
)

KEYS = {"base_url": f"{URL}/v1", "api_key": "any"}
client = openai.OpenAI(**KEYS)
chat = client.chat.completions
GREEDY = {"model": MODEL, "messages": MESSAGES, "temperature": 0}
SHORT = {**GREEDY, "max_completion_tokens": 5}


def counts_on(text: str) -> None:
    assert "4" in text, repr(text)


@feature("list")
def _() -> None:
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models, list(models)
    assert models[MODEL].created


@feature("show")
def _() -> None:
    assert client.models.retrieve(MODEL).id == MODEL


@feature("chat")
def _() -> object:
    answer = chat.create(**GREEDY)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    return answer.choices[0].message.content


@feature("chat, streamed")
def _() -> object:
    chunks = list(chat.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert len({chunk.id for chunk in chunks}) == 1
    return "".join(choice.delta.content or "" for choice in choices)


@feature("generate", shows=counts_on)
def _() -> object:
    answer = client.completions.create(model=MODEL, prompt="1, 2, 3,", temperature=0, max_tokens=8)
    return answer.choices[0].text


@feature("generate, streamed", shows=counts_on)
def _() -> object:
    fields = {"model": MODEL, "prompt": "1, 2, 3,", "temperature": 0, "max_tokens": 8}
    chunks = list(client.completions.create(**fields, stream=True))
    return "".join(chunk.choices[0].text for chunk in chunks)


@feature("responses")
def _() -> object:
    answer = client.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert answer.usage
    return answer.output_text


@feature("responses, streamed")
def _() -> object:
    events = list(client.responses.create(model=MODEL, input=QUESTION, temperature=0, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created", kinds
    assert kinds[-1] == "response.completed", kinds
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in events] == sorted(
        {event.sequence_number for event in events}
    )
    return "".join(deltas)


@feature("system message")
def _() -> None:
    without = chat.create(**SHORT)
    told = chat.create(**{**SHORT, "messages": [PIRATE, *MESSAGES]})
    assert told.usage.prompt_tokens != without.usage.prompt_tokens


@feature("token counts")
def _() -> None:
    usage = chat.create(**SHORT).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (37, 5, 42)


@feature("seed")
def _() -> object:
    told = {**SHORT, "temperature": 1.5, "seed": 7, "max_completion_tokens": 20}
    return [chat.create(**told).choices[0].message.content for _ in "12"]


@feature("limit of tokens")
def _() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = chat.create(**GREEDY, **{name: 5})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5


@feature("stop strings")
def _() -> object:
    answer = chat.create(**GREEDY, stop=["Paris"], max_tokens=40)
    assert answer.choices[0].finish_reason == "stop"
    return answer.choices[0].message.content


@feature("JSON schema")
def _() -> None:
    answer = chat.parse(**GREEDY, response_format=Answer, max_completion_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, Answer)


@feature("JSON mode")
def _() -> object:
    told = {**GREEDY, "messages": [{"role": "user", "content": ASK_JSON}], "max_tokens": 60}
    answer = chat.create(**told, response_format={"type": "json_object"})
    return answer.choices[0].message.content


@feature("log probabilities")
def _() -> None:
    [choice] = chat.create(**SHORT, logprobs=True, top_logprobs=2).choices
    assert len(choice.logprobs.content) == 5
    assert len(choice.logprobs.content[0].top_logprobs) == 2


@feature("tools refused")
def _() -> None:
    with refused(openai.BadRequestError, "tool", status=400):
        chat.create(**SHORT, tools=[WEATHER])


@feature("embed one")
def _() -> object:
    answer = client.embeddings.create(model=EMBEDDER, input=TEXTS[0])
    assert answer.usage.prompt_tokens
    return answer.data[0].embedding


@feature("embed many")
def _() -> object:
    for encoding in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model=EMBEDDER, input=TEXTS, **encoding)
        assert [entry.index for entry in answer.data] == [0, 1, 2]
        are_alike([entry.embedding for entry in answer.data])
    return [entry.embedding for entry in answer.data]


@feature("model not found")
def _() -> None:
    with refused(openai.NotFoundError, MISSING, "not found", status=404):
        chat.create(**{**SHORT, "model": MISSING})
    with refused(openai.NotFoundError, MISSING, status=404):
        client.models.retrieve(MISSING)


@feature("cancel")
def _() -> Iterator[object]:
    told = {"model": MODEL, "messages": [{"role": "user", "content": ENDLESS}]}
    stream = chat.create(**told, stream=True)
    yield next(iter(stream))
    yield stream.close()
    yield chat.create(**GREEDY).choices[0].message.content


@feature("async")
async def _() -> object:
    async with openai.AsyncOpenAI(**KEYS) as other:
        answer = await other.chat.completions.create(**GREEDY)
        return answer.choices[0].message.content


@feature("async, streamed")
async def _() -> object:
    async with openai.AsyncOpenAI(**KEYS) as other:
        stream = await other.chat.completions.create(**GREEDY, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@feature("async, embed")
async def _() -> object:
    async with openai.AsyncOpenAI(**KEYS) as other:
        answer = await other.embeddings.create(model=EMBEDDER, input=TEXTS)
        return [entry.embedding for entry in answer.data]


@feature("in parallel")
def _() -> object:
    return lambda: chat.create(**SHORT).usage.completion_tokens


drive()
