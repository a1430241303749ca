"""Only texts and limits of a rerank or score request reach the engine."""

from __future__ import annotations

import json

import pytest

from vllamad.errors import BadInput
from vllamad.translate.openai.rerank_fields import rerank_request, score_request

QUERY = {"model": "m", "query": "q"}


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_rerank_keeps_the_allowed_fields():
    request = body(
        **QUERY, documents=["a", {"text": "b"}], top_n=1, truncate_prompt_tokens=-1,
        priority=3, chat_template_kwargs={"x": 1}, top_k=None,
    )  # fmt: skip
    assert rerank_request(request) == (
        "m",
        {"query": "q", "documents": ["a", "b"], "top_n": 1, "truncate_prompt_tokens": -1},
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": "m", "documents": ["a"]}, "query must be a text"),
        ({**QUERY, "query": {"content": []}, "documents": ["a"]}, "query must be a text"),
        (QUERY, "documents must be a list of texts"),
        ({**QUERY, "documents": []}, "documents must be a list of texts"),
        ({**QUERY, "documents": "a"}, "documents must be a list of texts"),
        ({**QUERY, "documents": ["a", 1]}, "cannot compare what is no text"),
        ({**QUERY, "documents": [{"content": []}]}, "cannot compare what is no text"),
        ({"query": "q", "documents": ["a"]}, "model is required"),
    ],
)
def test_a_rerank_of_no_texts_is_refused(fields, text):
    with pytest.raises(BadInput) as raised:
        rerank_request(body(**fields))
    assert raised.value.message == text


@pytest.mark.parametrize(
    ("left", "right"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_a_score_takes_any_of_the_engines_pairs(left, right):
    request = body(model="m", **{left: "a", right: ["b", "c"]}, other=1)
    assert score_request(request) == ("m", {left: "a", right: ["b", "c"]})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"text_1": "a"}, "two texts, or lists of texts, are needed: text_1 and text_2"),
        ({"text_1": "a", "text_2": 1}, "cannot compare what is no text"),
        ({"text_1": ["a", None], "text_2": "b"}, "cannot compare what is no text"),
    ],
)
def test_a_score_of_no_texts_is_refused(fields, text):
    with pytest.raises(BadInput) as raised:
        score_request(body(model="m", **fields))
    assert raised.value.message == text
