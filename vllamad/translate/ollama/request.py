"""The bodies of `/api/generate`, `/api/chat` and `/api/show`, as typed requests.

Checks only what the body alone can tell, in Ollama's order. Knows no models: whether a name exists
and what its model can do is checked elsewhere.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeVar, get_args

import msgspec
from msgspec import Meta

from vllamad.errors import BadInput
from vllamad.translate.content.images import Image
from vllamad.translate.go import json_decoder
from vllamad.translate.go.duration import parse_keep_alive
from vllamad.translate.go.fields import string
from vllamad.translate.go.struct_reader import (
    GoName,
    GoValue,
    Int,
    ReadWith,
    RequestReader,
)

MAX_MESSAGES = 10_000
MAX_TOOLS = 512
MAX_TOOL_CALLS = 512  # in one message
MAX_IMAGES = 32  # in one message

ThinkLevel = Literal["high", "medium", "low", "max"]
THINK_LEVELS: tuple[str, ...] = get_args(ThinkLevel)

_LEVELS = '"high", "medium", "low", "max", true, or false'


class KeepAlive(GoValue, float):
    """How long a model stays loaded after a request: seconds, math.inf for ever."""

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        seconds = parse_keep_alive(value)
        assert seconds is not None  # only null is not given
        return cls(seconds)


def _read_role(value: object, where: str) -> str:
    return string(value, where).lower()


def _read_think(value: object, where: str) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadInput(f"think must be a boolean or string ({_LEVELS})")
    if value not in THINK_LEVELS:
        raise BadInput(f"invalid think value: {json_decoder.quoted(value)} (must be {_LEVELS})")
    return value


def _read_tool(value: object, where: str) -> dict[str, object]:
    if not json_decoder.is_object(value):
        raise BadInput(f"cannot take a tool that is not an object in {where}")
    return value


def _read_arguments(value: object, where: str) -> dict[str, object]:
    if not json_decoder.is_object(value):
        raise BadInput("Value looks like object, but can't find closing '}' symbol")
    return value


Images = Annotated[list[Image], Meta(max_length=MAX_IMAGES)]
Tool = Annotated[dict[str, object], ReadWith(_read_tool)]  # as the client wrote it


class PastFunctionCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The function of a call and its arguments."""

    GO_TYPE: ClassVar[str] = "api.ToolCallFunction"

    name: str = ""
    arguments: Annotated[dict[str, object], ReadWith(_read_arguments)] = {}


class PastToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call the assistant made earlier in the conversation."""

    GO_TYPE: ClassVar[str] = "api.ToolCall"

    id: str = ""
    function: PastFunctionCall = PastFunctionCall()


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation; `role` is lower case and not checked, as in Ollama."""

    role: Annotated[str, Meta(pattern=r"\A[a-z]*\Z"), ReadWith(_read_role)] = ""
    content: str = ""
    thinking: str = ""
    images: Images = []
    tool_calls: Annotated[list[PastToolCall], Meta(max_length=MAX_TOOL_CALLS)] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that `/api/generate` and `/api/chat` share; `shift` has no effect here."""

    model: str = ""
    stream: bool = True
    format: object = None
    keep_alive: KeepAlive | None = None
    options: dict[str, object] = {}
    think: Annotated[bool | ThinkLevel | None, ReadWith(_read_think)] = None
    truncate: bool = True
    shift: bool = True
    debug_render_only: bool = msgspec.field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: Int = 0


class GenerateRequest(Generation, frozen=True, kw_only=True):
    """The body of `/api/generate`."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: Annotated[list[Int], Meta(max_length=json_decoder.MAX_ELEMENTS)] = []
    raw: bool = False
    images: Images = []

    @property
    def is_empty(self) -> bool:
        """True for a request that only loads or unloads its model."""
        return not self.prompt

    @property
    def wants_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0


class ChatRequest(Generation, frozen=True, kw_only=True):
    """The body of `/api/chat`; tools stay as the client wrote them."""

    messages: Annotated[list[Message], Meta(max_length=MAX_MESSAGES)] = []
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS), GoName("api.Tools")] = []

    @property
    def is_empty(self) -> bool:
        """True for a request that only loads or unloads its model."""
        return not self.messages

    @property
    def wants_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0


class ShowRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `/api/show`; `name` is the older spelling of `model`."""

    model: str = ""
    name: str = ""
    system: str = ""
    options: dict[str, object] = {}
    verbose: bool = False


def decode_generate(body: bytes) -> GenerateRequest:
    """Read the body of `/api/generate`. Raises BadInput with Ollama's text."""
    return _with_valid_logprobs(_GENERATE.read(body))


def decode_chat(body: bytes) -> ChatRequest:
    """Read the body of `/api/chat`. Raises BadInput with Ollama's text."""
    return _with_valid_logprobs(_CHAT.read(body))


def decode_show(body: bytes) -> ShowRequest:
    """Read the body of `/api/show`, `model` filled from `name`. Raises BadInput."""
    request = _SHOW.read(body)
    return request if request.model else msgspec.structs.replace(request, model=request.name)


G = TypeVar("G", bound=Generation)


def _with_valid_logprobs(request: G) -> G:
    if not 0 <= request.top_logprobs <= 20:
        raise BadInput("top_logprobs must be between 0 and 20")
    return request


_GENERATE = RequestReader(GenerateRequest)
_CHAT = RequestReader(ChatRequest)
_SHOW = RequestReader(ShowRequest)
