"""The fields of a rerank or score request that reach the engine: texts and limits."""

from __future__ import annotations

from vllamad.errors import BadInput
from vllamad.translate.engine.request_fields import read_request
from vllamad.translate.go.json_decoder import is_list, is_object

_LIMITS = frozenset({
    "instruction", "max_tokens_per_doc", "max_tokens_per_query", "top_n", "truncate_prompt_tokens",
    "truncation_side", "use_activation",
})  # fmt: skip
# The engine accepts any of these pairs.
_SCORE = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


def rerank_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a rerank body: the model's name, and the body for the engine. Raises BadInput."""
    name, request, kept = read_request(body, "RerankRequest", _LIMITS)
    query = request.get("query")
    if not isinstance(query, str):
        raise BadInput("query must be a text")
    documents = request.get("documents")
    if not is_list(documents) or not documents:
        raise BadInput("documents must be a list of texts")
    return name, kept | {"query": query, "documents": [_text(document) for document in documents]}


def score_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a score body, as `rerank_request` does."""
    name, request, kept = read_request(body, "ScoreRequest", _LIMITS)
    for left, right in _SCORE:
        if left in request and right in request:
            return name, kept | {left: _texts(request[left]), right: _texts(request[right])}
    raise BadInput("two texts, or lists of texts, are needed: text_1 and text_2")


def _texts(value: object) -> str | list[str]:
    return [_text(item) for item in value] if is_list(value) else _text(value)


def _text(value: object) -> str:
    """Read a text, or the object that some clients wrap it in."""
    text = value.get("text") if is_object(value) else value
    if not isinstance(text, str):
        raise BadInput("cannot compare what is no text")
    return text
