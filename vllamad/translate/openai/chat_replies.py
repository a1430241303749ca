"""An engine's answers of chat and completions with the keys of OpenAI's API, and no others.

What the engine adds for itself (its clock, token ids, transfers) stays here. Each event is read and
written anew: about a microsecond more than passing it on as it is, and a quarter fewer bytes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from vllamad.errors import EngineRefused
from vllamad.translate.engine.fit_to_worker import PLAIN
from vllamad.translate.openai.passthrough import OpenAIPassthrough

_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class _Cached(Struct, omit_defaults=True):
    cached_tokens: int | None = None


class _Reasoned(Struct, omit_defaults=True):
    reasoning_tokens: int | None = None


class _Usage(Struct, omit_defaults=True):
    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType | None = UNSET
    total_tokens: int | UnsetType = UNSET
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None

    def counted(self, copies: int) -> tuple[int, int]:
        """Tokens of the prompt and of `copies` alike answers; all three counts are set."""
        prompt, said = self.prompt_tokens or 0, (self.completion_tokens or 0) * copies
        self.prompt_tokens, self.completion_tokens, self.total_tokens = prompt, said, prompt + said
        return prompt, said


class _Function(Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class _CallPiece(Struct, omit_defaults=True):
    index: int
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Delta(Struct, omit_defaults=True):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # what older engines call `reasoning`
    tool_calls: list[_CallPiece] | None = None


class _Logprobs(Struct):
    content: list[Raw] | None = None


class _Choice(Struct, omit_defaults=True):
    """What the choices of all answers have; null is said for a reason that is not there yet."""

    index: int
    finish_reason: str | UnsetType | None = UNSET

    def name_reason(self) -> None:
        """Name the reason as the API names it."""
        if self.finish_reason and self.finish_reason not in _REASONS:
            self.finish_reason = "stop"

    def mute(self) -> None:
        """Leave nothing said but the end: the limit was none."""
        if self.finish_reason:
            self.finish_reason = "length"


class _DeltaChoice(_Choice, kw_only=True):
    delta: _Delta
    logprobs: _Logprobs | None = None

    def mute(self) -> None:
        super().mute()
        self.delta = _Delta(role=self.delta.role, content="")
        self.logprobs = None


class _Call(Struct):
    id: str
    function: _Function
    type: str = "function"


class _Message(Struct):
    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    reasoning: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType | None = UNSET
    tool_calls: list[_Call] | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        self.reasoning = self.reasoning or UNSET
        self.reasoning_content = self.reasoning_content or UNSET
        self.tool_calls = self.tool_calls or UNSET


class _MessageChoice(_Choice, kw_only=True, omit_defaults=False):
    message: _Message
    logprobs: _Logprobs | None = None

    def mute(self) -> None:
        super().mute()
        self.message = _Message(content="")
        self.logprobs = None


class _Positions(Struct):
    text_offset: Raw = Raw(b"[]")
    token_logprobs: Raw = Raw(b"[]")
    tokens: Raw = Raw(b"[]")
    top_logprobs: Raw = Raw(b"[]")


class _TextChoice(_Choice, kw_only=True, omit_defaults=False):
    text: str
    logprobs: _Positions | None = None

    def mute(self) -> None:
        super().mute()
        self.text = ""
        self.logprobs = None


C = TypeVar("C", bound=_Choice)


class _Answer(Struct, Generic[C], omit_defaults=True):
    """A whole answer, or one event of it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[C]
    system_fingerprint: str | None = None
    usage: _Usage | None = None


class _Reply(OpenAIPassthrough):
    """One answer; an event or an object that cannot be read ends it with an error."""

    _whole: ClassVar[msgspec.json.Decoder[Any]]
    _piece: ClassVar[msgspec.json.Decoder[Any]]

    def finish(self, now_ns: int) -> bytes:
        if self._stream:
            return super().finish(now_ns)
        answer = _read(self._whole, bytes(self._body))
        if answer is None:
            return self.fail(_unreadable())
        self.started = True
        answer.choices = self._told(answer)
        return _encoder.encode(answer)

    def _said(self, payload: bytes) -> bytes:
        answer = _read(self._piece, payload)
        if answer is None:
            return self.fail(_unreadable())
        if self._form is PLAIN and answer.usage is None and _goes_on(answer.choices):
            answer.model = self._asked_name  # the many events in the middle
            return b"data: %b\n\n" % _encoder.encode(answer)
        choices = self._told(answer)
        if not self._shows_usage:
            answer.usage = None
            if not choices:
                return b""
        if len(choices) < 2:
            return b"data: %b\n\n" % _encoder.encode(answer)
        return b"".join(_event(answer, choice) for choice in choices)

    def _told(self, answer: _Answer[Any]) -> list[Any]:
        """The choices for the client, and its name and counts in the rest."""
        answer.model = self._asked_name
        copies, muted = self._form
        if answer.usage is not None:
            self.prompt_tokens, self.completion_tokens = answer.usage.counted(copies)
        for choice in answer.choices:
            choice.name_reason()
            if muted:
                choice.mute()
        if copies == 1:
            return answer.choices
        return [
            msgspec.structs.replace(choice, index=choice.index * copies + at)
            for choice in answer.choices
            for at in range(copies)
        ]


class ChatReply(_Reply):
    """An answer of `/v1/chat/completions`."""

    _whole = msgspec.json.Decoder(_Answer[_MessageChoice])
    _piece = msgspec.json.Decoder(_Answer[_DeltaChoice])


class CompletionReply(_Reply):
    """An answer of `/v1/completions`."""

    _whole = msgspec.json.Decoder(_Answer[_TextChoice])
    _piece = _whole


def _read(decoder: msgspec.json.Decoder[Any], payload: bytes) -> _Answer[Any] | None:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _goes_on(choices: list[_Choice]) -> bool:
    """Is there one choice, without a reason to end?"""
    return len(choices) == 1 and not choices[0].finish_reason


def _event(answer: _Answer[Any], choice: _Choice) -> bytes:
    answer.choices = [choice]
    return b"data: %b\n\n" % _encoder.encode(answer)


def _unreadable() -> EngineRefused:
    return EngineRefused("cannot read the engine's answer", status=500)


_encoder = msgspec.json.Encoder()
