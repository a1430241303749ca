"""llama-index: its Ollama LLM and its Ollama embeddings."""

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
    drive,
    feature,
    names_paris,
    refused,
)
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama

ASK = [ChatMessage(role="user", content=QUESTION)]


def model(name: str = MODEL, **told: object) -> Ollama:
    """Its options travel as `additional_kwargs`."""
    ours = {key: told.pop(key) for key in ("json_mode", "keep_alive", "thinking") if key in told}
    options = {"temperature": 0} | told
    return Ollama(model=name, base_url=URL, request_timeout=120, additional_kwargs=options, **ours)


def embedding() -> OllamaEmbedding:
    return OllamaEmbedding(model_name=EMBEDDER, base_url=URL)


@feature("show")
def _() -> None:
    assert model().metadata.context_window == 8192


@feature("load, unload")
def _() -> None:
    names_paris(model(keep_alive=0).complete(QUESTION).text)
    names_paris(model(keep_alive="5m").complete(QUESTION).text)


@feature("chat")
def _() -> object:
    answer = model().chat(ASK)
    assert answer.raw["done_reason"] == "stop"
    return answer.message.content


@feature("chat, streamed")
def _() -> object:
    chunks = list(model().stream_chat(ASK))
    names_paris("".join(chunk.delta or "" for chunk in chunks))
    return chunks[-1].message.content


@feature("generate")
def _() -> object:
    return model().complete(QUESTION).text


@feature("generate, streamed")
def _() -> object:
    return "".join(chunk.delta or "" for chunk in model().stream_complete(QUESTION))


@feature("system message")
def _() -> None:
    short = model(num_predict=5)
    system = ChatMessage(role="system", content=PIRATE["content"])
    told = short.chat([system, *ASK]).raw["prompt_eval_count"]
    assert told != short.chat(ASK).raw["prompt_eval_count"]


@feature("token counts")
def _() -> None:
    usage = model(num_predict=5).chat(ASK).raw["usage"]
    assert usage == {"prompt_tokens": 37, "completion_tokens": 5, "total_tokens": 42}, usage


@feature("seed")
def _() -> object:
    told = model(seed=7, temperature=1.5, num_predict=20)
    return [told.complete(QUESTION).text, told.complete(QUESTION).text]


@feature("limit of tokens")
def _() -> None:
    assert model(num_predict=5).chat(ASK).raw["done_reason"] == "length"


@feature("stop strings")
def _() -> object:
    return model(stop=["Paris"], num_predict=40).complete(QUESTION).text


@feature("JSON schema")
def _() -> None:
    prompt = PromptTemplate(QUESTION)
    assert isinstance(model(num_predict=200).structured_predict(Answer, prompt), Answer)


@feature("JSON mode")
def _() -> object:
    return model(json_mode=True, num_predict=60).complete(ASK_JSON).text


@feature("tools refused")
def _() -> None:
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sun in {city}"

    with refused(ollama.ResponseError, "does not support tools", status=400):
        model().chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg=QUESTION)


@feature("thinking refused")
def _() -> None:
    with refused(ollama.ResponseError, "does not support thinking", status=400):
        model(thinking=True).complete(QUESTION)


@feature("embed one")
def _() -> object:
    return embedding().get_query_embedding(TEXTS[0])


@feature("embed many")
def _() -> object:
    return embedding().get_text_embedding_batch(TEXTS)


@feature("model not found")
def _() -> None:
    with refused(ollama.ResponseError, MISSING, "not found", status=404):
        model(MISSING).chat(ASK)


@feature("cancel")
def _() -> Iterator[object]:
    stream = model().stream_complete(ENDLESS)
    yield next(stream)
    yield stream.close()
    yield model().complete(QUESTION).text


@feature("async")
async def _() -> object:
    return (await model().achat(ASK)).message.content


@feature("async, streamed")
async def _() -> object:
    stream = await model().astream_chat(ASK)
    return "".join([chunk.delta or "" async for chunk in stream])


@feature("async, embed")
async def _() -> object:
    return await embedding().aget_text_embedding_batch(TEXTS)


@feature("in parallel")
def _() -> object:
    one = model(num_predict=5)
    return lambda: one.chat(ASK).raw["eval_count"]


drive()
