"""What can one event of vLLM's stream hold? Chat and completion chunks, usage, errors.

Unknown fields are ignored, so a newer engine may say more.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import EngineRefused

NO_IDS = msgspec.Raw(b"null")


class Logprob(msgspec.Struct, omit_defaults=True):
    """A token with its probability, in the one shape OpenAI's chat route and Ollama share."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] | None = None

    def __post_init__(self) -> None:
        self.bytes = self.bytes or None
        self.top_logprobs = self.top_logprobs or None


class Logprobs(msgspec.Struct):
    """`content` is the chat route's form, the others are the completion route's."""

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
    reasoning_content: str | None = None  # what older engines call `reasoning`
    tool_calls: list[CallPiece] | None = None


class Choice(msgspec.Struct):
    """`delta` in the chat route, `text` in the completion route, as are the prompt's ids."""

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
    """The engine's own clock, milliseconds; only with --enable-per-request-metrics."""

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
    """Read one event. Raises EngineRefused for what is no chunk."""
    try:
        return _chunks.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EngineRefused("cannot read the engine's answer", status=500) from None


def ids_in(raw: msgspec.Raw) -> bytes:
    """The token ids of a JSON list as its text between the brackets; b"" for none."""
    text = bytes(raw)
    return text[1:-1] if text.startswith(b"[") else b""


def read_logprobs(logprobs: Logprobs | None, top: int) -> tuple[Logprob, ...]:
    """Give the tokens of a chunk in Ollama's shape, each with at most `top` alternatives."""
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
    """The completion route may add the sampled token to its `top`: keep the likeliest."""
    ranked = sorted((alternatives or {}).items(), key=lambda item: -item[1])
    return [Logprob(token, logprob, list(token.encode())) for token, logprob in ranked[:top]]
