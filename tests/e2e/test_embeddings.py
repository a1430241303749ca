"""Vectors and scores of a real embedding model, through the clients people use."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Generator, Sequence
from typing import Any

import ollama
import openai
import pytest

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL

pytestmark = pytest.mark.e2e

EMBEDDER = "all-minilm:l6-v2"  # made ready by `make prepare`
CAT, FELINE, MARKETS = "The cat sits", "A feline rests", "Stock markets fell sharply"
LONG = "word " * 300  # the model takes 256 tokens


@pytest.fixture
def client(real: Daemon) -> Generator[ollama.Client]:
    with ollama.Client(host=real.url, timeout=180) as one:
        yield one


@pytest.fixture
def openai_client(real: Daemon) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", timeout=180) as one:
        yield one


def curl(real: Daemon, path: str, body: dict[str, Any]) -> Any:
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", f"{real.url}{path}", "-d", json.dumps(body)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def likeness(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def is_unit(vector: Sequence[float]) -> bool:
    return math.isclose(math.hypot(*vector), 1, abs_tol=1e-6)


def test_ollama_python_embeds_one_text(client: ollama.Client) -> None:
    answer = client.embed(EMBEDDER, CAT)
    [vector] = answer.embeddings
    assert len(vector) == 384
    assert is_unit(vector)
    assert answer.prompt_eval_count == 5
    assert answer.total_duration
    assert answer.load_duration
    assert answer.model == EMBEDDER


def test_what_is_meant_alike_lies_close(client: ollama.Client) -> None:
    cat, feline, markets = client.embed(EMBEDDER, [CAT, FELINE, MARKETS]).embeddings
    assert likeness(cat, feline) > 0.5 > 0.2 > likeness(cat, markets)


def test_many_texts_come_back_in_order_and_as_they_do_alone(client: ollama.Client) -> None:
    texts = [f"Sentence number {number}, über {number * 7} Dinge." for number in range(100)]
    answer = client.embed(EMBEDDER, texts)
    assert len(answer.embeddings) == 100
    for index in (0, 42, 99):
        [alone] = client.embed(EMBEDDER, texts[index]).embeddings
        assert likeness(alone, answer.embeddings[index]) == pytest.approx(1, abs=1e-4)


def test_ollama_python_asks_for_fewer_dimensions(client: ollama.Client) -> None:
    [vector] = client.embed(EMBEDDER, CAT, dimensions=64).embeddings
    assert len(vector) == 64
    assert is_unit(vector)


def test_a_text_too_long_is_cut_unless_it_must_not_be(client: ollama.Client) -> None:
    assert client.embed(EMBEDDER, LONG).prompt_eval_count == 256
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as raised:
        client.embed(EMBEDDER, LONG, truncate=False)
    assert raised.value.status_code == 400
    # so long that the engine does not even count its tokens
    assert client.embed(EMBEDDER, LONG * 50).prompt_eval_count == 256


def test_ollama_python_uses_the_older_form(client: ollama.Client) -> None:
    vector = client.embeddings(EMBEDDER, CAT).embedding
    [newer] = client.embed(EMBEDDER, CAT).embeddings
    assert likeness(vector, newer) == pytest.approx(1, abs=1e-4)


def test_ollama_python_loads_and_sees_it(client: ollama.Client) -> None:
    assert list(client.embed(EMBEDDER, "").embeddings) == []
    assert EMBEDDER in [model.model for model in client.ps().models]
    shown = client.show(EMBEDDER)
    assert shown.capabilities == ["embedding"]
    info = shown.modelinfo or {}
    assert (info["bert.context_length"], info["bert.embedding_length"]) == (256, 384)
    assert info["bert.pooling_type"] == 1


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_openai_embeds(openai_client: openai.OpenAI, client: ollama.Client, form: Any) -> None:
    more = {"encoding_format": form} if form else {}  # its own default is base64, made floats
    answer = openai_client.embeddings.create(model=EMBEDDER, input=[CAT, MARKETS], **more)
    assert [entry.index for entry in answer.data] == [0, 1]
    assert answer.model == EMBEDDER
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 11
    if form != "base64":
        [same] = client.embed(EMBEDDER, CAT).embeddings
        assert likeness(answer.data[0].embedding, same) == pytest.approx(1, abs=1e-4)


def test_openai_asks_for_fewer_dimensions_and_by_token_ids(openai_client: openai.OpenAI) -> None:
    tokens = [101, 1996, 4937, 7719, 102]  # "[CLS] the cat sits [SEP]"
    answer = openai_client.embeddings.create(model=EMBEDDER, input=[tokens], dimensions=64)
    assert len(answer.data[0].embedding) == 64
    assert answer.usage.prompt_tokens == 5
    with pytest.raises(openai.BadRequestError, match="out of vocabulary"):
        openai_client.embeddings.create(model=EMBEDDER, input=[[999_999]])


def test_curl_reranks(real: Daemon) -> None:
    body = {"model": EMBEDDER, "query": CAT, "documents": [MARKETS, FELINE], "top_n": 1}
    [best] = curl(real, "/v1/rerank", body)["results"]
    assert (best["index"], best["document"]["text"]) == (1, FELINE)


def test_curl_scores(real: Daemon) -> None:
    body = {"model": EMBEDDER, "text_1": CAT, "text_2": [FELINE, MARKETS]}
    near, far = (entry["score"] for entry in curl(real, "/v1/score", body)["data"])
    assert near > 0.5 > 0.2 > far


def test_each_model_says_what_it_cannot(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match=f'"{EMBEDDER}" does not support chat'):
        client.chat(EMBEDDER, [{"role": "user", "content": CAT}])
    with pytest.raises(ollama.ResponseError, match="does not support embeddings") as raised:
        client.embed(MODEL, CAT)
    assert raised.value.status_code == 501


@pytest.mark.case("B2")
@pytest.mark.parametrize("num_ctx", [90, 3, 2])
def test_num_ctx_is_how_many_tokens_are_read(real: Daemon, num_ctx: int) -> None:
    options = {"num_ctx": num_ctx}
    told = curl(real, "/api/embed", {"model": EMBEDDER, "input": LONG, "options": options})
    assert told["prompt_eval_count"] == num_ctx
    body = {"model": EMBEDDER, "prompt": LONG, "options": options}
    older = curl(real, "/api/embeddings", body)["embedding"]
    assert likeness(older, told["embeddings"][0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.case("B2")
def test_truncate_false_refuses_what_num_ctx_does_not_hold(client: ollama.Client) -> None:
    text = "word " * 88
    options = {"num_ctx": 90}
    held = client.embed(EMBEDDER, text, truncate=False, options=options)
    assert held.prompt_eval_count == 90
    with pytest.raises(ollama.ResponseError) as refused:
        client.embed(EMBEDDER, [CAT, text + "more"], truncate=False, options=options)
    assert refused.value.error == "the input length exceeds the context length"
    assert refused.value.status_code == 400
