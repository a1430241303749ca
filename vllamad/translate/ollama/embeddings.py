"""Requests for embeddings, on `/api/embed`, `/api/embeddings` and `/v1/embeddings`, and responses.

The engine sends its floats as bytes, not as decimals: that is a fifth as long, and faster to read.
Knows no models and does no I/O.
"""

from __future__ import annotations

import struct
from math import hypot, isfinite
from typing import NamedTuple

import msgspec

from vllamad.errors import BadInput, EngineRefused
from vllamad.translate.engine.request_fields import read_request
from vllamad.translate.error_bodies import FAILED
from vllamad.translate.go.fields import integer
from vllamad.translate.go.json_decoder import is_list
from vllamad.translate.go.struct_reader import Int, RequestReader
from vllamad.translate.ollama.request import KeepAlive
from vllamad.translate.ollama.to_engine import EngineCall

PATH = "/v1/embeddings"

NOT_SUPPORTED = "This server does not support embeddings. Start it with `--embeddings`"
TOO_LONG = "the input length exceeds the context length"
NO_TOKENS = (
    "cannot take token ids, which may be of another model's tokenizer: send text "
    "(OpenAIEmbeddings of LangChain: check_embedding_ctx_length=False)"
)

_AROUND = 4  # tokens that a tokenizer may put around a text
_SHORTEST_LENGTH = 1e-12  # of a vector; a shorter one is divided by this

Vector = tuple[float, ...]  # float32 values


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `/api/embed`."""

    model: str = ""
    input: object = None
    truncate: bool = True
    dimensions: Int = 0
    keep_alive: KeepAlive | None = None
    options: dict[str, object] = {}

    def texts(self) -> list[str]:
        """Return the texts to embed; none only loads the model. Raises BadInput for other types."""
        if self.input is None or self.input == "":
            return []
        texts = self.input if is_list(self.input) else [self.input]
        return [_text(text) for text in texts]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `/api/embeddings`, the older form."""

    model: str = ""
    prompt: str = ""
    keep_alive: KeepAlive | None = None
    options: dict[str, object] = {}


class OpenAIRequest(NamedTuple):
    """The body of `/v1/embeddings`; inputs are texts or token ids, as vLLM takes them."""

    model: str
    inputs: list[object]
    dimensions: int
    base64: bool
    truncate_to: int | None  # tokens, -1 for the model's own limit

    @property
    def has_tokens(self) -> bool:
        return any(is_list(item) for item in self.inputs)


class Vectors(NamedTuple):
    """The vectors of an engine's response."""

    vectors: list[Vector]
    prompt_tokens: int


def decode_embed(body: bytes) -> EmbedRequest:
    """Read the body of `/api/embed`. Raises BadInput with Ollama's text."""
    return _EMBED.read(body)


def decode_embeddings(body: bytes) -> EmbeddingRequest:
    """Read the body of `/api/embeddings`. Raises BadInput with Ollama's text."""
    return _EMBEDDINGS.read(body)


def decode_openai(body: bytes) -> OpenAIRequest:
    """Read the body of `/v1/embeddings`. Raises BadInput."""
    model, fields, _ = read_request(body, "EmbedRequest", frozenset())
    form = fields.get("encoding_format") or "float"
    if not isinstance(form, str) or form.lower() not in ("float", "base64"):
        raise BadInput(
            f"Invalid value for 'encoding_format' = {form}. Supported values: ['float', 'base64']."
        )
    inputs = fields.get("input")
    if inputs is None or inputs == []:
        raise BadInput("invalid input")
    truncate_to = _number(fields, "truncate_prompt_tokens")
    return OpenAIRequest(
        model=model,
        inputs=_openai_inputs(inputs),
        dimensions=_number(fields, "dimensions") or 0,
        base64=form.lower() == "base64",
        truncate_to=None if truncate_to is None else max(truncate_to, -1),
    )


def embeddings_call(
    inputs: list[str] | list[object], *, served_name: str, truncate_to: int | None
) -> EngineCall:
    """Build the call that embeds `inputs`, cut to `truncate_to` tokens; -1 is the model's limit."""
    body: dict[str, object] = {
        "model": served_name,
        "input": inputs,
        "encoding_format": "base64",
    }
    if truncate_to is not None:
        body["truncate_prompt_tokens"] = truncate_to
    return EngineCall(path=PATH, body=body)


def cut_to(limit: int, requested: int | None) -> int | None:
    """Return how many tokens inputs are cut to; -1 is the model's limit, None does not cut.

    `limit` is the most tokens to keep, 0 for the model's limit.
    """
    if requested is None or not limit:
        return requested
    return limit if requested < 0 else min(requested, limit)


def longest(text: str) -> int:
    """Return the most tokens a text can have: one for each byte, and those around it."""
    return len(text.encode(errors="replace")) + _AROUND


def read_vectors(body: bytes, count: int) -> Vectors:
    """Read the engine's response to a call with `count` inputs. Raises EngineRefused."""
    try:
        response = msgspec.json.decode(body, type=_Response)
        vectors = [
            struct.unpack(f"<{len(item.embedding) // 4}f", item.embedding) for item in response.data
        ]
    except (msgspec.DecodeError, struct.error) as error:
        raise EngineRefused(FAILED, status=500) from error
    if len(vectors) != count:
        raise EngineRefused(FAILED, status=500)
    if not all(map(isfinite, (hypot(*vector) for vector in vectors))):
        raise EngineRefused("embedding contains NaN or Inf values", status=400)
    return Vectors(vectors, response.usage.prompt_tokens)


def unit(vector: Vector, dimensions: int = 0) -> Vector:
    """Scale a vector to length 1, cut to its first `dimensions`; 0 keeps all."""
    kept = vector[:dimensions] if dimensions > 0 else vector
    length = max(hypot(*kept), _SHORTEST_LENGTH)
    return _as_float32([value / length for value in kept])


def decimals(vector: Vector) -> str:
    """Write a vector in JSON, each float32 with the fewest digits that identify it."""
    texts = _printed(vector, 6)  # nine digits identify each float32, six at least are needed
    doubtful = list(range(len(vector)))
    for digits in (7, 8, 9):
        read = _as_float32([float(texts[index]) for index in doubtful])
        doubtful = [
            index for index, value in zip(doubtful, read, strict=True) if value != vector[index]
        ]
        longer = _printed([vector[index] for index in doubtful], digits)
        for index, text in zip(doubtful, longer, strict=True):
            texts[index] = text
    return f"[{','.join(texts)}]"


def embed_reply(
    model: str,
    result: Vectors,
    *,
    dimensions: int = 0,
    total_duration: int = 0,
    load_duration: int = 0,
) -> bytes:
    """The reply of `/api/embed`; durations are nanoseconds."""
    rows = ",".join(decimals(unit(vector, dimensions)) for vector in result.vectors)
    return msgspec.json.encode(
        _EmbedReply(
            model=model,
            embeddings=msgspec.Raw(f"[{rows}]".encode()),
            total_duration=total_duration,
            load_duration=load_duration,
            prompt_eval_count=result.prompt_tokens,
        )
    )


def embeddings_reply(vector: Vector) -> bytes:
    """The reply of `/api/embeddings`: each float32 with the digits of its double precision.

    Ollama's engine scales each vector to length 1; vLLM only where the model says so.
    """
    return msgspec.json.encode({"embedding": unit(vector)})


def openai_reply(request: OpenAIRequest, result: Vectors) -> bytes:
    """The reply of `/v1/embeddings`, newline included."""
    units = [unit(vector, request.dimensions) for vector in result.vectors]
    data = [
        {"object": "embedding", "embedding": _openai_vector(vector, request.base64), "index": index}
        for index, vector in enumerate(units)
    ]
    usage = {"prompt_tokens": result.prompt_tokens, "total_tokens": result.prompt_tokens}
    body = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return msgspec.json.encode(body) + b"\n"


class _EmbedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    embeddings: msgspec.Raw
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class _Item(msgspec.Struct):
    embedding: bytes  # written as base64


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Response(msgspec.Struct):
    data: list[_Item]
    usage: _Usage


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadInput("invalid input type")
    return value


def _openai_inputs(inputs: object) -> list[object]:
    """Return the inputs as a list: of one text, texts, one list of token ids, or such lists."""
    if isinstance(inputs, str) or _is_tokens(inputs):
        return [inputs]
    if is_list(inputs) and (
        all(isinstance(item, str) for item in inputs) or all(map(_is_tokens, inputs))
    ):
        return inputs
    raise BadInput("invalid input type")


def _is_tokens(value: object) -> bool:
    return is_list(value) and bool(value) and all(type(token) is int for token in value)


def _number(fields: dict[str, object], name: str) -> int | None:
    value = fields.get(name)
    return None if value is None else integer(value, f"EmbedRequest.{name}")


def _as_float32(values: list[float]) -> Vector:
    form = f"<{len(values)}f"
    return struct.unpack(form, struct.pack(form, *values))


def _printed(values: Vector | list[float], digits: int) -> list[str]:
    """Print all with one format: several times as fast as one format for each."""
    return (f"%.{digits}g " * len(values) % tuple(values)).split()


def _openai_vector(vector: Vector, base64: bool) -> bytes | msgspec.Raw:
    if base64:
        return struct.pack(f"<{len(vector)}f", *vector)
    return msgspec.Raw(decimals(vector).encode())


_EMBED = RequestReader(EmbedRequest)
_EMBEDDINGS = RequestReader(EmbeddingRequest)
