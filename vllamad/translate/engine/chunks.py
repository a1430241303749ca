"""The events of vLLM's stream: chat and completion chunks, usage, errors.

Unknown fields are ignored, so that a newer engine may send more.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import EngineRefused

NO_IDS = msgspec.Raw(b"null")


class Logprob(msgspec.Struct, omit_defaults=True):
    """A token with its probability, in the form that OpenAI's chat route and Ollama share."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] | None = None

    def __post_init__(self) -> None:
        self.bytes = self.bytes or None
        self.top_logprobs = self.top_logprobs or None


class Logprobs(msgspec.Struct):
    """Log probabilities: `content` of the chat route, the other fields of the completion route."""

    content: list[Logprob] | None = None
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class FunctionPiece(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class CallPiece(msgspec.Struct):
    """A fragment of a tool call: name and id come once, arguments bit by bit."""

    index: int = 0
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the name of `reasoning` in older engines
    tool_calls: list[CallPiece] | None = None


class Choice(msgspec.Struct):
    """A choice: `delta` of the chat route; `text` and the prompt's ids of the completion route."""

    delta: Delta | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    token_ids: msgspec.Raw = NO_IDS
    prompt_token_ids: msgspec.Raw = NO_IDS

    @property
    def content(self) -> str:
        return (self.delta.content if self.delta else self.text) or ""

    @property
    def thinking(self) -> str:
        return ((self.delta.reasoning or self.delta.reasoning_content) if self.delta else "") or ""


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Metrics(msgspec.Struct):
    """Times measured by the engine, in milliseconds; only with --enable-per-request-metrics."""

    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None
    queue_time_ms: float | None = None


class Fault(msgspec.Struct):
    message: str = ""
    code: int | str | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    prompt_token_ids: msgspec.Raw = NO_IDS
    usage: Usage | None = None
    metrics: Metrics | None = None
    error: Fault | str | None = None


_chunks = msgspec.json.Decoder(Chunk)


def read_chunk(payload: bytes) -> Chunk:
    """Read one event. Raises EngineRefused if it is no chunk."""
    try:
        return _chunks.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EngineRefused("cannot read the engine's answer", status=500) from None


def ids_in(raw: msgspec.Raw) -> bytes:
    """The text between the brackets of a JSON list of token ids; b"" if there are none."""
    text = bytes(raw)
    return text[1:-1] if text.startswith(b"[") else b""


def read_logprobs(logprobs: Logprobs | None, top: int) -> tuple[Logprob, ...]:
    """The tokens of a chunk in Ollama's form, each with at most `top` alternatives."""
    if logprobs is None:
        return ()
    if logprobs.content is not None:
        return tuple(logprobs.content)
    alternatives = logprobs.top_logprobs or []
    return tuple(
        Logprob(
            token,
            -9999.0 if logprob is None else logprob,
            list(token.encode()),
            _best(alternatives[i] if i < len(alternatives) else None, top),
        )
        for i, (token, logprob) in enumerate(
            zip(logprobs.tokens, logprobs.token_logprobs, strict=False)
        )
    )


def _best(alternatives: dict[str, float] | None, top: int) -> list[Logprob]:
    """The likeliest `top` tokens: the completion route may add the sampled token to them."""
    ranked = sorted((alternatives or {}).items(), key=lambda item: -item[1])
    return [Logprob(token, logprob, list(token.encode())) for token, logprob in ranked[:top]]
