"""An embedding model as vLLM 0.32 spells its answers, see recorded/. Standard library only.

A text's vector counts its words by kind, so that texts with words in common are alike. It has any
length: not every model's last layer makes it 1.
"""

from __future__ import annotations

import base64
import math
import os
import struct
import time
import zlib
from typing import Any

from tests.fakes.sse_builder import Json, dump, refusal, reply

_INPUTS = {
    "/pooling": [("input",)],
    "/v1/embeddings": [("input",)],
    "/rerank": [("query", "documents")],
    "/score": [
        ("text_1", "text_2"),
        ("queries", "documents"),
        ("queries", "items"),
        ("data_1", "data_2"),
    ],
}
PATHS = tuple(_INPUTS)
SIZE = 16  # numbers in a vector
TOO_LONG = (
    "This model's maximum context length is {0} tokens. However, your prompt contains at least {1}"
    " input tokens, which exceeds this limit even without any output tokens. Please reduce the"
    " length of the input prompt. (parameter=input_tokens, value={1})"
)


def answer(path: str, body: Json, *, model: str, context: int, vector: list[float] | None) -> bytes:
    """The whole HTTP answer; every text has this `vector`, where one is given."""
    names = next((names for names in _INPUTS[path] if body.keys() >= {*names}), ("input",))
    texts = [_listed(body.get(name)) for name in names]
    limit = body.get("truncate_prompt_tokens")
    cut = context if limit == -1 else limit
    tokens = [[_tokens(text)[:cut] for text in some] for some in texts]
    if not all(tokens) or not all(one for some in tokens for one in some):
        return refusal(400, "You must pass at least one prompt", "BadRequestError")
    if path == "/score" and len(texts[0]) not in (1, len(texts[1])):
        return refusal(400, "Input lengths must be either 1:1, 1:N or N:N", "BadRequestError")
    if any(len(one) > context for some in tokens for one in some):
        message = TOO_LONG.format(context, context + 1)
        return refusal(400, message, "BadRequestError", "input_tokens")
    vectors = [[vector or _vector(one) for one in some] for some in tokens]
    count = sum(len(one) for some in tokens for one in some)
    usage: Json = {"prompt_tokens": count, "total_tokens": count}
    if path == "/rerank":
        results = _ranked(vectors, texts[1])[: body.get("top_n") or None]
        whole: Json = {"id": _id("score"), "model": model, "usage": usage, "results": results}
        return reply(200, dump(whole))
    if path == "/score":
        kind, data = "score", _scores(vectors)
    else:
        kind, data = "embd", _embeddings(vectors[0], body.get("encoding_format") == "base64")
    more = ("prompt_tokens_details", "completion_tokens_details")
    usage |= {"completion_tokens": 0, **dict.fromkeys(more)}
    start: Json = {"id": _id(kind), "object": "list", "created": int(time.time()), "model": model}
    return reply(200, dump(start | {"data": data, "usage": usage}))


def tokenized(body: Json, context: int) -> bytes:
    tokens = list(range(len(_tokens(body["prompt"]))))
    more = {"tokens": tokens, "token_strs": None}
    return dump({"count": len(tokens), "max_model_len": context, **more})


def _listed(value: Any) -> list[Any]:
    """One input or several, each a text or token ids."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        return [value]
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _tokens(text: Any) -> list[Any]:
    return ["[CLS]", *text.split(), "[SEP]"] if isinstance(text, str) else text


def _vector(tokens: list[Any]) -> list[float]:
    vector = [0.0] * SIZE
    for token in tokens:
        vector[zlib.crc32(str(token).lower().encode()) % SIZE] += 1
    return vector


def _likeness(one: list[float], other: list[float]) -> float:
    """The cosine of the angle between them."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


def _scores(vectors: list[list[list[float]]]) -> list[Json]:
    """Each with its counterpart, or all with the only one there is."""
    lefts, rights = vectors
    return [
        {"index": index, "object": "score", "score": _likeness(lefts[index % len(lefts)], right)}
        for index, right in enumerate(rights)
    ]


def _ranked(vectors: list[list[list[float]]], texts: list[str]) -> list[Json]:
    results: list[Json] = [
        {
            "index": index,
            "document": {"text": texts[index], "multi_modal": None},
            "relevance_score": scored["score"],
        }
        for index, scored in enumerate(_scores(vectors))
    ]
    return sorted(results, key=lambda result: -result["relevance_score"])


def _embeddings(vectors: list[list[float]], packed: bool) -> list[Json]:
    return [
        {"index": index, "object": "embedding", "embedding": _base64(one) if packed else one}
        for index, one in enumerate(vectors)
    ]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _id(kind: str) -> str:
    return f"{kind}-{os.urandom(8).hex()}"
