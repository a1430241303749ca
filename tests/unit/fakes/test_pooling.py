"""The fake embedding model speaks as the recorded engine does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.fakes import pooling
from tests.support.paths import RECORDED

MODEL = "all-minilm:l6-v2"
CAT = {"model": MODEL, "documents": ["a stock", "a feline"], "text_2": ["a stock", "a feline"]}


def ask(path: str, **body: Any) -> bytes:
    return pooling.answer(path, body, model=MODEL, context=256, vector=None)


def shape(data: bytes) -> str:
    """Blank out what differs from one answer to the next, numbers and their order included."""
    text = data.rpartition(b"\r\n\r\n")[2].decode().strip()
    text = re.sub(r'("id":"\w+-)\w+|("embedding":)"[^"]*"', r"\1\2", text)
    text = re.sub(r'"text":"[^"]*"', '"text":""', text)
    return re.sub(r"(?<![A-Za-z])\d[\d.e-]*", "0", text)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("embeddings", "/v1/embeddings", {"input": ["a b", "c"], "encoding_format": "base64"}),
        ("embeddings-too-long", "/v1/embeddings", {"input": "word " * 300}),
        ("rerank", "/rerank", {**CAT, "query": "cat"}),
        ("score", "/score", {**CAT, "text_1": "cat"}),
    ],
)
def test_an_answer_is_spelled_as_recorded(name, path, body):
    assert shape(ask(path, **body)) == shape((RECORDED / f"{name}.json").read_bytes())


def test_the_likest_document_comes_first():
    answer = ask("/rerank", query="red cat", documents=["blue sea", "a red cat", "cat"], top_n=2)
    results = json.loads(answer.rpartition(b"\r\n\r\n")[2])["results"]
    assert [result["index"] for result in results] == [1, 2]
