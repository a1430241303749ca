"""langchain-ollama: ChatOllama, OllamaLLM and OllamaEmbeddings."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
from answers import Answer
from kit import (
    ASK_JSON,
    EMBEDDER,
    ENDLESS,
    MISSING,
    MODEL,
    PIRATE,
    QUESTION,
    TEXTS,
    URL,
    WEATHER,
    drive,
    feature,
    names_paris,
    refused,
)
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM


def chat(**told: object) -> ChatOllama:
    return ChatOllama(**{"model": MODEL, "base_url": URL, "temperature": 0} | told)


def embeddings() -> OllamaEmbeddings:
    return OllamaEmbeddings(model=EMBEDDER, base_url=URL)


@feature("list")
def _() -> None:
    chat(validate_model_on_init=True)


@feature("load, unload")
def _() -> None:
    names_paris(chat(keep_alive=0).invoke(QUESTION).content)
    names_paris(chat(keep_alive="5m").invoke(QUESTION).content)


@feature("chat")
def _() -> object:
    answer = chat().invoke(QUESTION)
    assert answer.response_metadata["done_reason"] == "stop"
    return answer.content


@feature("chat, streamed")
def _() -> object:
    chunks = list(chat().stream(QUESTION))
    assert len(chunks) > 2
    return "".join(chunk.content for chunk in chunks)


@feature("generate")
def _() -> object:
    return OllamaLLM(model=MODEL, base_url=URL, temperature=0).invoke(QUESTION)


@feature("generate, streamed")
def _() -> object:
    return "".join(OllamaLLM(model=MODEL, base_url=URL, temperature=0).stream(QUESTION))


@feature("system message")
def _() -> None:
    short = chat(num_predict=5)
    without = short.invoke([HumanMessage(QUESTION)]).usage_metadata
    told = short.invoke([SystemMessage(PIRATE["content"]), HumanMessage(QUESTION)])
    assert told.usage_metadata["input_tokens"] != without["input_tokens"]


@feature("token counts")
def _() -> None:
    usage = chat(num_predict=5).invoke(QUESTION).usage_metadata
    assert usage == {"input_tokens": 37, "output_tokens": 5, "total_tokens": 42}, usage


@feature("seed")
def _() -> object:
    told = chat(seed=7, temperature=1.5, num_predict=20)
    return [told.invoke(QUESTION).content, told.invoke(QUESTION).content]


@feature("limit of tokens")
def _() -> None:
    assert chat(num_predict=5).invoke(QUESTION).response_metadata["done_reason"] == "length"


@feature("stop strings")
def _() -> object:
    return chat(num_predict=40).invoke(QUESTION, stop=["Paris"]).content


@feature("JSON schema")
def _() -> None:
    model = chat(num_predict=200).with_structured_output(Answer, method="json_schema")
    assert isinstance(model.invoke(QUESTION), Answer)


@feature("JSON mode")
def _() -> object:
    return chat(format="json", num_predict=60).invoke(ASK_JSON).content


@feature("log probabilities")
def _() -> None:
    answer = chat(num_predict=5, logprobs=True, top_logprobs=2).invoke(QUESTION)
    assert len(answer.response_metadata["logprobs"]) == 5


@feature("tools refused")
def _() -> None:
    with refused(ollama.ResponseError, "does not support tools", status=400):
        chat().bind_tools([WEATHER]).invoke(QUESTION)


@feature("thinking refused")
def _() -> None:
    with refused(ollama.ResponseError, "does not support thinking", status=400):
        chat(reasoning=True).invoke(QUESTION)


@feature("embed one")
def _() -> object:
    return embeddings().embed_query(TEXTS[0])


@feature("embed many")
def _() -> object:
    return embeddings().embed_documents(TEXTS)


@feature("model not found")
def _() -> None:
    with refused(ollama.ResponseError, MISSING, "not found", status=404):
        chat(model=MISSING).invoke(QUESTION)
    with refused(ValueError, MISSING, "not found"):
        chat(model=MISSING, validate_model_on_init=True)


@feature("cancel")
def _() -> Iterator[object]:
    stream = chat().stream(ENDLESS)
    yield next(stream)
    yield stream.close()
    yield chat().invoke(QUESTION).content


@feature("async")
async def _() -> object:
    return (await chat().ainvoke(QUESTION)).content


@feature("async, streamed")
async def _() -> object:
    return "".join([chunk.content async for chunk in chat().astream(QUESTION)])


@feature("async, embed")
async def _() -> object:
    return await embeddings().aembed_documents(TEXTS)


@feature("in parallel")
def _() -> object:
    model = chat(num_predict=5)
    return lambda: model.invoke(QUESTION).usage_metadata["output_tokens"]


drive()
