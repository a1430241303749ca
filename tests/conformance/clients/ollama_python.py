"""The official Python client, `ollama.Client` and `ollama.AsyncClient`."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ollama
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
    drive,
    feature,
    is_let_go,
    is_served,
    names_paris,
    refused,
)

client = ollama.Client(host=URL)
GREEDY = {"temperature": 0}
SHORT = {"temperature": 0, "num_predict": 5}


@feature("list")
def _() -> None:
    models = {model.model: model for model in client.list().models}
    assert MODEL in models, list(models)
    assert models[MODEL].size
    assert len(models[MODEL].digest or "") == 64


@feature("show")
def _() -> None:
    shown = client.show(MODEL)
    assert shown.modelinfo
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "completion" in (shown.capabilities or [])


@feature("load, unload")
def _() -> None:
    assert client.generate(MODEL, keep_alive="5m").done_reason == "load"
    assert MODEL in [model.model for model in client.ps().models]
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert client.chat(MODEL, [], keep_alive=60).done_reason == "load"


@feature("ps")
def _() -> None:
    [loaded] = [model for model in client.ps().models if model.model == MODEL]
    assert loaded.expires_at
    assert loaded.expires_at.tzinfo
    assert loaded.context_length
    assert loaded.size


@feature("chat")
def _() -> object:
    answer = client.chat(MODEL, MESSAGES, options=GREEDY)
    assert answer.done_reason == "stop"
    return answer.message.content


@feature("chat, streamed")
def _() -> object:
    chunks = list(client.chat(MODEL, MESSAGES, options=GREEDY, stream=True))
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return "".join(chunk.message.content or "" for chunk in chunks)


@feature("generate")
def _() -> object:
    return client.generate(MODEL, QUESTION, options=GREEDY).response


@feature("generate, streamed")
def _() -> object:
    chunks = list(client.generate(MODEL, QUESTION, options=GREEDY, stream=True))
    assert chunks[-1].done
    return "".join(chunk.response or "" for chunk in chunks)


@feature("system message")
def _() -> None:
    without = client.chat(MODEL, MESSAGES, options=SHORT).prompt_eval_count
    told = client.chat(MODEL, [PIRATE, *MESSAGES], options=SHORT).prompt_eval_count
    system = client.generate(MODEL, QUESTION, system=PIRATE["content"], options=SHORT)
    assert told != without
    assert system.prompt_eval_count == told


@feature("token counts")
def _() -> None:
    answer = client.chat(MODEL, MESSAGES, options=GREEDY)
    assert answer.prompt_eval_count == 37
    assert answer.eval_count
    assert answer.eval_duration
    assert (answer.total_duration or 0) >= answer.eval_duration


@feature("seed")
def _() -> object:
    options = {"seed": 7, "temperature": 1.5, "num_predict": 20}
    return [client.generate(MODEL, QUESTION, options=options).response for _ in "12"]


@feature("limit of tokens")
def _() -> None:
    answer = client.chat(MODEL, MESSAGES, options=SHORT)
    assert (answer.done_reason, answer.eval_count) == ("length", 5)


@feature("stop strings")
def _() -> object:
    options = {**GREEDY, "stop": ["Paris"], "num_predict": 40}
    answer = client.chat(MODEL, MESSAGES, options=options)
    assert answer.done_reason == "stop"
    return answer.message.content or ""


@feature("JSON schema")
def _() -> None:
    schema = Answer.model_json_schema()
    answer = client.chat(MODEL, MESSAGES, format=schema, options={**GREEDY, "num_predict": 200})
    Answer.model_validate_json(answer.message.content or "")


@feature("JSON mode")
def _() -> object:
    options = {**GREEDY, "num_predict": 60}
    return client.generate(MODEL, ASK_JSON, format="json", options=options).response


@feature("log probabilities")
def _() -> None:
    answer = client.chat(MODEL, MESSAGES, options=SHORT, logprobs=True, top_logprobs=2)
    assert len(answer.logprobs or []) == 5
    assert len((answer.logprobs or [])[0].top_logprobs or []) == 2


@feature("tools refused")
def _() -> None:
    with refused(ollama.ResponseError, "does not support tools", status=400):
        client.chat(MODEL, MESSAGES, tools=[WEATHER])


@feature("thinking refused")
def _() -> None:
    with refused(ollama.ResponseError, "does not support thinking", status=400):
        client.chat(MODEL, MESSAGES, think=True)


@feature("embed one")
def _() -> object:
    [vector] = client.embed(EMBEDDER, TEXTS[0]).embeddings
    legacy = client.embeddings(EMBEDDER, TEXTS[0]).embedding
    assert len(vector) == len(legacy)
    return vector


@feature("embed many")
def _() -> object:
    return client.embed(EMBEDDER, TEXTS).embeddings


@feature("model not found")
def _() -> None:
    with refused(ollama.ResponseError, MISSING, "not found", status=404):
        client.chat(MISSING, MESSAGES)
    with refused(ollama.ResponseError, MISSING, "not found", status=404):
        list(client.chat(MISSING, MESSAGES, stream=True))
    with refused(ollama.ResponseError, MISSING, "not found", status=404):
        client.show(MISSING)


@feature("pull refused")
def _() -> None:
    with refused(ollama.ResponseError, "pull model manifest: file does not exist"):
        client.pull(MISSING)
    with refused(ollama.ResponseError, "pull model manifest: file does not exist"):
        list(client.pull(MISSING, stream=True))


@feature("cancel")
def _() -> Iterator[object]:
    stream = client.chat(MODEL, [{"role": "user", "content": ENDLESS}], stream=True)
    first = next(stream)
    assert not first.done
    yield first
    yield stream.close()
    yield client.chat(MODEL, MESSAGES, options=GREEDY).message.content


@feature("copy, delete")
def _() -> None:
    client.copy(MODEL, "conformance-copy")
    assert client.show("conformance-copy").template == client.show(MODEL).template
    client.delete("conformance-copy")
    with refused(ollama.ResponseError, "not found", status=404):
        client.delete("conformance-copy")


@feature("create")
def _() -> None:
    told = {"from_": MODEL, "system": PIRATE["content"], "parameters": {"num_predict": 3}}
    assert [line.status for line in client.create("conformance", stream=True, **told)][-1] == (
        "success"
    )
    answer = client.chat("conformance", MESSAGES, options=GREEDY)
    client.delete("conformance")
    assert answer.eval_count == 3


@feature("upload a blob")
def _() -> None:
    content = b"conformance"
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        digest = client.create_blob(file.name)
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


@feature("async")
async def _() -> object:
    answer = await ollama.AsyncClient(host=URL).chat(MODEL, MESSAGES, options=GREEDY)
    return answer.message.content


@feature("async, streamed")
async def _() -> object:
    stream = await ollama.AsyncClient(host=URL).chat(MODEL, MESSAGES, options=GREEDY, stream=True)
    return "".join([chunk.message.content or "" async for chunk in stream])


@feature("async, cancel")
async def _() -> None:
    other = ollama.AsyncClient(host=URL)
    task = asyncio.create_task(other.generate(MODEL, ENDLESS))
    await asyncio.to_thread(is_served)
    task.cancel()
    await asyncio.to_thread(is_let_go)
    names_paris((await other.generate(MODEL, QUESTION, options=GREEDY)).response)


@feature("in parallel")
def _() -> object:
    return lambda: client.chat(MODEL, MESSAGES, options=SHORT).eval_count


drive()
