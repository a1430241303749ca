"""pydantic-ai with its OllamaModel, which speaks to /v1/chat/completions."""

from __future__ import annotations

import asyncio

from answers import Answer
from kit import (
    EMBEDDER,
    ENDLESS,
    MISSING,
    MODEL,
    PIRATE,
    QUESTION,
    TEXTS,
    URL,
    drive,
    feature,
    is_let_go,
    is_served,
    names_paris,
    refused,
)
from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.providers.ollama import OllamaProvider


def agent(output: object = str, name: str = MODEL, **told: object) -> Agent:
    """A new client each time: every feature has an event loop of its own."""
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="any")
    model = OllamaModel(name, provider=OllamaProvider(openai_client=client))
    system = told.pop("system", ())
    settings = {"temperature": 0} | told
    return Agent(model, output_type=output, system_prompt=system, model_settings=settings)


@feature("chat")
def _() -> object:
    return agent().run_sync(QUESTION).output


@feature("chat, streamed")
async def _() -> object:
    async with agent().run_stream(QUESTION) as result:
        deltas = [text async for text in result.stream_text(delta=True, debounce_by=None)]
    assert len(deltas) > 2
    return "".join(deltas)


@feature("system message")
def _() -> None:
    without = agent(max_tokens=5).run_sync(QUESTION).usage
    told = agent(max_tokens=5, system=PIRATE["content"]).run_sync(QUESTION).usage
    assert told.input_tokens != without.input_tokens


@feature("token counts")
def _() -> None:
    usage = agent(max_tokens=5).run_sync(QUESTION).usage
    assert (usage.input_tokens, usage.output_tokens) == (37, 5), usage


@feature("conversation")
def _() -> None:
    first = agent(max_tokens=5).run_sync(QUESTION)
    history = first.all_messages()
    second = agent(max_tokens=5).run_sync("And of Spain?", message_history=history)
    assert second.usage.input_tokens > first.usage.input_tokens


@feature("seed")
def _() -> object:
    told = {"seed": 7, "temperature": 1.5, "max_tokens": 20}
    return [agent(**told).run_sync(QUESTION).output for _ in "12"]


@feature("limit of tokens")
def _() -> None:
    response = agent(max_tokens=5).run_sync(QUESTION).all_messages()[-1]
    assert response.finish_reason == "length", response


@feature("stop strings")
def _() -> object:
    told = {"stop_sequences": ["Paris"], "max_tokens": 40}
    return agent(**told).run_sync(QUESTION).output


@feature("JSON schema")
def _() -> None:
    result = agent(NativeOutput(Answer), max_tokens=200).run_sync(QUESTION)
    assert isinstance(result.output, Answer)


@feature("tools refused")
def _() -> None:
    asked = agent(max_tokens=5)

    @asked.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sun in {city}"

    with refused(ModelHTTPError, "tool", status=400):
        asked.run_sync(QUESTION)


@feature("embed one")
async def _() -> object:
    found = await embedder().embed_query(TEXTS[0])
    return found.embeddings[0]


@feature("embed many")
async def _() -> object:
    return (await embedder().embed_documents(TEXTS)).embeddings


def embedder() -> Embedder:
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="any")
    return Embedder(OpenAIEmbeddingModel(EMBEDDER, provider=OllamaProvider(openai_client=client)))


@feature("model not found")
def _() -> None:
    with refused(ModelHTTPError, MISSING, "not found", status=404):
        agent(name=MISSING).run_sync(QUESTION)


@feature("cancel", shows=names_paris)
async def _() -> object:
    async with agent().run_stream(ENDLESS) as result:
        await anext(result.stream_text(delta=True, debounce_by=None))
        is_served()
        await result.cancel()
        await asyncio.to_thread(is_let_go)
    return (await agent().run(QUESTION)).output


@feature("async")
async def _() -> object:
    return (await agent().run(QUESTION)).output


@feature("in parallel")
def _() -> object:
    return lambda: agent(max_tokens=5).run_sync(QUESTION).usage.output_tokens


drive()
