"""The library of the command line `llm`, with its plugin llm-ollama. It finds its models by
asking the server for all of them, and for the capabilities of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

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
    refused,
)

os.environ["OLLAMA_HOST"] = URL

import llm
from answers import Answer

NAME, VECTORS = f"ollama/{MODEL}", f"ollama/{EMBEDDER}"
GREEDY = {"temperature": 0}
SHORT = {"temperature": 0, "num_predict": 5}


def ask(text: str = QUESTION, **told: object) -> llm.Response:
    return llm.get_model(NAME).prompt(text, **GREEDY | told)


@feature("list")
def _() -> None:
    names = [model.model_id for model in llm.get_models()]
    vectors = [found.model.model_id for found in llm.get_embedding_models_with_aliases()]
    assert NAME in names, names
    assert VECTORS in vectors, vectors
    assert VECTORS not in names, "an embedding model is no chat model"


@feature("chat")
def _() -> object:
    return ask(stream=False).text()


@feature("chat, streamed")
def _() -> object:
    pieces = list(ask(stream=True))
    assert len(pieces) > 2
    return "".join(pieces)


@feature("conversation")
def _() -> None:
    conversation = llm.get_model(NAME).conversation()
    first = conversation.prompt(QUESTION, **SHORT)
    first.text()
    second = conversation.prompt("And of Spain?", **SHORT)
    second.text()
    assert second.input_tokens > first.input_tokens


@feature("system message")
def _() -> None:
    without, told = ask(**SHORT), ask(system=PIRATE["content"], **SHORT)
    assert told.usage().input != without.usage().input


@feature("token counts")
def _() -> None:
    usage = ask(**SHORT).usage()
    assert (usage.input, usage.output) == (37, 5)


@feature("seed")
def _() -> object:
    told = {"seed": 7, "temperature": 1.5, "num_predict": 20}
    return [ask(**told).text(), ask(**told).text()]


@feature("limit of tokens")
def _() -> None:
    response = ask(stream=False, **SHORT)
    response.text()
    assert response.response_json["done_reason"] == "length"


@feature("stop strings")
def _() -> object:
    return ask(stop=["Paris"], num_predict=40).text()


@feature("JSON schema")
def _() -> None:
    Answer.model_validate_json(ask(schema=Answer, num_predict=200).text())


@feature("JSON mode")
def _() -> object:
    return ask(ASK_JSON, json_object=True, num_predict=60).text()


@feature("tools refused")
def _() -> None:
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sun in {city}"

    # It knows from the capabilities of /api/show, and does not even ask.
    with refused(ValueError, "tools"):
        ask(tools=[get_weather]).text()


@feature("thinking refused")
def _() -> None:
    with refused(Exception, "does not support thinking"):
        ask(think=True).text()


@feature("embed one")
def _() -> object:
    return llm.get_embedding_model(VECTORS).embed(TEXTS[0])


@feature("embed many")
def _() -> object:
    return list(llm.get_embedding_model(VECTORS).embed_multi(TEXTS))


@feature("model not found")
def _() -> None:
    with refused(llm.UnknownModelError, MISSING):
        llm.get_model(MISSING)


@feature("cancel")
def _() -> Iterator[object]:
    stream = iter(ask(ENDLESS))
    yield next(stream)
    yield stream.close()
    yield ask().text()


@feature("async")
async def _() -> object:
    return await llm.get_async_model(NAME).prompt(QUESTION, stream=False, **GREEDY).text()


@feature("async, streamed")
async def _() -> object:
    response = llm.get_async_model(NAME).prompt(QUESTION, **GREEDY)
    return "".join([piece async for piece in response])


@feature("in parallel")
def _() -> object:
    return lambda: ask(**SHORT).usage().output


drive()
