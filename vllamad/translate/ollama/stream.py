"""Turns the engine's chunks into Ollama's lines, piece by piece.

Has no clock and does no I/O: the caller passes the time, sends the lines, and reads `failed`,
`started` and `complete`.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import EngineRefused, VllamadError, WorkerLost
from vllamad.translate.engine.chunks import (
    Choice,
    Chunk,
    Fault,
    Metrics,
    Usage,
    ids_in,
    read_chunk,
    read_logprobs,
)
from vllamad.translate.engine.tool_calls import CallBuffer
from vllamad.translate.error_bodies import STOPPED, api_error, refusal_of
from vllamad.translate.go.timestamps import Stamps
from vllamad.translate.ollama import encode, stream_fast_path
from vllamad.translate.ollama.encode import (
    NOTHING_TRUNCATED,
    AnswerPiece,
    LastLine,
    Spelling,
    Truncated,
)
from vllamad.translate.ollama.stream_fast_path import DIGITS

DONE = b"[DONE]"

_BACKSLASH = 0x5C
_REASONS = {"length": "length", "abort": ""}  # all others, "repetition" too, are a stop


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one request's events: monotonic nanoseconds, 0 for never."""

    received: int
    granted: int
    first_token: int = 0
    last_token: int = 0
    ended: int


class Reply:
    """One answer, from the engine's first event to the line that ends it.

    An event whose bytes differ from an earlier one's in the text alone is copied without being
    parsed, the others are parsed. There is no `done` line unless the engine finished.
    """

    def __init__(
        self,
        spelling: Spelling,
        model: str,
        *,
        stream: bool = True,
        thinking: bool = True,
        top_logprobs: int = 0,
        muted: bool = False,
        truncated: Truncated = NOTHING_TRUNCATED,
    ) -> None:
        """Echo `model`; leave thinking out unless `thinking`; leave all text out if `muted`.

        `muted` is for `num_predict` 0, where the engine makes one token that is counted, as in
        Ollama, but not shown.
        """
        self.failed: VllamadError | None = None
        self.started = False  # a line was returned: too late for a status
        self.complete = False  # the engine has ended its stream
        self._spelling = spelling
        self._opening = encode.opening(model)
        self._stream = stream
        self._thinking = thinking
        self._top_logprobs = top_logprobs
        self._muted = muted
        self._truncated = truncated
        self._stamps = Stamps()
        self._template = stream_fast_path.NONE
        self._calls = CallBuffer()
        self._collected: list[AnswerPiece] = []
        self._context: list[bytes] = []  # token ids, if the engine sends them
        self._has_thought = self._thought_begun = self._answer_begun = False
        self._finish_reason = ""
        self._usage = Usage()
        self._metrics = Metrics()

    @property
    def prompt_tokens(self) -> int:
        return self._usage.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return self._usage.completion_tokens

    def feed(self, payloads: list[bytes], now_ns: int) -> bytes:
        """Translate the data of the events just received; return the lines to send, or b"".

        `now_ns` is wall-clock nanoseconds since the epoch.
        """
        out: list[bytes] = []
        start = self._opening + self._stamps(now_ns)
        prefix, middle, suffix, head, tail = self._copying(start)
        for payload in payloads:
            if payload.startswith(prefix) and payload.endswith(suffix):
                text = payload[len(prefix) : -len(suffix)]
                ids = b""
                if middle:
                    text, _, ids = text.partition(middle)
                # An escaped quote is parsed; an escape must not reach into the suffix.
                if text and b'"' not in text and text[-1] != _BACKSLASH and not ids.strip(DIGITS):
                    out.append(head + text + tail)
                    if ids:
                        self._context.append(ids)
                    continue
            self.started = self.started or bool(out)
            if line := self._parse(payload, start):
                out.append(line)
            prefix, middle, suffix, head, tail = self._copying(start)
        self.started = self.started or bool(out)
        return b"".join(out)

    def fail(self, error: VllamadError) -> bytes:
        """End the answer with `error`; return its line, or b"" while a status can carry it."""
        if self.failed is not None:
            return b""
        self.failed = error
        self._template = stream_fast_path.NONE
        return api_error(error.message) + b"\n" if self.started else b""

    def finish(self, now_ns: int, times: Times) -> bytes:
        """End the answer: the `done` line, or the whole answer as one object if not streamed.

        If the engine's stream ended without a finish reason, this fails as `fail` does.
        """
        if self.failed is not None:
            return b""
        if not self._finish_reason:
            return self.fail(WorkerLost(STOPPED))
        reason = "length" if self._muted else _REASONS.get(self._finish_reason, "stop")
        self.started = True
        answer = encode.last(
            self._spelling,
            self._opening + self._stamps(now_ns),
            _joined(self._collected),
            reason,
            self._ending(times),
            b",".join(self._context),
        )
        return answer + b"\n" if self._stream else answer

    def _copying(self, start: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """Return the bytes around the text: of an event, to compare, and of our line, to write."""
        template = self._template
        spelling = self._spelling
        before, after = (
            spelling.around_thinking if template.is_thinking else spelling.around_content
        )
        return template.prefix, template.middle, template.suffix, start + before, after

    def _parse(self, payload: bytes, start: bytes) -> bytes:
        """Translate one event of any kind."""
        if self.failed is not None or self.complete:
            return b""
        if payload == DONE:
            self.complete = True
            self._template = stream_fast_path.NONE
            return b""
        try:
            chunk = read_chunk(payload)
            line = self._take(chunk, start)
        except EngineRefused as error:
            return self.fail(error)
        if self._stream and not self._muted and not payload.startswith(self._template.prefix):
            self._learn(payload, chunk)
        return line

    def _take(self, chunk: Chunk, start: bytes) -> bytes:
        if chunk.error is not None:
            raise _refusal(chunk.error)
        self._usage = chunk.usage or self._usage
        self._metrics = chunk.metrics or self._metrics
        if not chunk.choices:
            return b""
        choice = chunk.choices[0]
        self._remember(chunk, choice)
        if choice.delta is not None and choice.delta.tool_calls:
            self._calls.add(choice.delta.tool_calls)
        line = self._say(self._piece(choice), start)
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason
            calls = self._calls.take_whole(cut_short=choice.finish_reason == "length")
            line += self._say(AnswerPiece(tool_calls=calls), start)
        return line

    def _remember(self, chunk: Chunk, choice: Choice) -> None:
        """Keep the token ids: the prompt's, which come once, and those of the answer."""
        ids_of = (chunk.prompt_token_ids, choice.prompt_token_ids, choice.token_ids)
        for raw in ids_of[:2] if self._muted else ids_of:
            if ids := ids_in(raw):
                self._context.append(ids)

    def _learn(self, payload: bytes, chunk: Chunk) -> None:
        learned = stream_fast_path.learn(payload, chunk)
        if learned is None:
            return
        # Leading blanks are dropped first, and thoughts always where the client wants none.
        begun = self._thought_begun if learned.is_thinking else self._answer_begun
        if begun and (self._thinking or not learned.is_thinking):
            self._template = learned

    def _piece(self, choice: Choice) -> AnswerPiece:
        content, thinking = self._trimmed(choice.content, choice.thinking)
        return AnswerPiece(
            content=_escaped(content),
            thinking=_escaped(thinking) if self._thinking else b"",
            logprobs=read_logprobs(choice.logprobs, self._top_logprobs),
        )

    def _trimmed(self, content: str, thinking: str) -> tuple[str, str]:
        """Drop the blank lines that models put around their thoughts, as Ollama does."""
        self._has_thought = self._has_thought or bool(thinking)
        if not self._thought_begun:
            thinking = thinking.lstrip()
            self._thought_begun = bool(thinking)
        if not self._answer_begun:
            content = content.lstrip() if self._has_thought else content
            self._answer_begun = bool(content)
        return content, thinking

    def _say(self, piece: AnswerPiece, start: bytes) -> bytes:
        """Return the line of a piece that is not empty; unless streamed, keep it for the end."""
        if self._muted or not any(piece):
            return b""
        if self._stream:
            return encode.line(self._spelling, start, piece)
        self._collected.append(piece)
        return b""

    def _ending(self, times: Times) -> LastLine:
        """Return counts and durations, by the engine's clock where it sends them; never zero."""
        first = times.first_token or times.ended
        last = times.last_token or first
        metrics = self._metrics
        reading = (metrics.time_to_first_token_ms or 0) - (metrics.queue_time_ms or 0)
        return LastLine(
            total_duration=max(times.ended - times.received, 1),
            load_duration=max(times.granted - times.received, 1),
            prompt_eval_count=self.prompt_tokens,
            prompt_eval_duration=max(_nanoseconds(reading) or first - times.granted, 1),
            eval_count=self.completion_tokens,
            eval_duration=max(_nanoseconds(metrics.generation_time_ms) or last - first, 1),
            truncated_messages=self._truncated.messages,
            truncated_tokens=self._truncated.tokens,
        )


def _escaped(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1] if text else b""


def _nanoseconds(milliseconds: float | None) -> int:
    return int((milliseconds or 0) * 1e6)


def _joined(pieces: list[AnswerPiece]) -> AnswerPiece:
    return AnswerPiece(
        content=b"".join(piece.content for piece in pieces),
        thinking=b"".join(piece.thinking for piece in pieces),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
    )


def _refusal(fault: Fault | str) -> EngineRefused:
    if isinstance(fault, str):
        return refusal_of(500, fault)
    status = fault.code if isinstance(fault.code, int) and 400 <= fault.code < 600 else 500
    return refusal_of(status, fault.message)
