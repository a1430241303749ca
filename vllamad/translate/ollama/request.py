"""What did an Ollama client ask? Request bodies into typed requests.

Checks only what the body alone can tell, in Ollama's order. Knows no models: whether a name
exists and what that model can do is for others.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.content.images import Image, read_image
from vllamad.translate.go import json_decoder
from vllamad.translate.go.duration import parse_keep_alive
from vllamad.translate.go.fields import (
    Read,
    anything,
    boolean,
    integer,
    list_of,
    mapping,
    read_fields,
    string,
)

MAX_MESSAGES = 10_000
MAX_TOOLS = 512
MAX_TOOL_CALLS = 512  # in one message
MAX_IMAGES = 32  # in one message
THINK_LEVELS = ("high", "medium", "low", "max")

_LEVELS = '"high", "medium", "low", "max", true, or false'


class PastToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call the assistant made earlier in the conversation."""

    id: str = ""
    name: str = ""
    arguments: dict[str, object] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation; `role` is lower case and not checked, as in Ollama."""

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[Image] = []
    tool_calls: list[PastToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What `/api/generate` and `/api/chat` share."""

    model: str = ""
    stream: bool = True
    format: object = None
    keep_alive: float | None = None  # seconds, math.inf for ever, None for not given
    options: dict[str, object] = {}
    think: bool | str | None = None
    truncate: bool = True
    debug_render_only: bool = msgspec.field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: int = 0


class GenerateRequest(Generation, frozen=True, kw_only=True):
    """The body of `/api/generate`."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = []
    raw: bool = False
    images: list[Image] = []

    @property
    def is_empty(self) -> bool:
        """Is there nothing to answer, so that this only loads or unloads?"""
        return not self.prompt

    @property
    def wants_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0


class ChatRequest(Generation, frozen=True, kw_only=True):
    """The body of `/api/chat`; tools stay as the client spelled them."""

    messages: list[Message] = []
    tools: list[dict[str, object]] = []

    @property
    def is_empty(self) -> bool:
        """Is there nothing to answer, so that this only loads or unloads?"""
        return not self.messages

    @property
    def wants_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0


class ShowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/show`; `name` is the older spelling of `model`."""

    model: str = ""
    name: str = ""
    system: str = ""
    options: dict[str, object] = {}
    verbose: bool = False


def decode_generate(body: bytes) -> GenerateRequest:
    """Read the body of `/api/generate`. Raises BadInput with Ollama's text."""
    return _in_range(decode_request(body, GenerateRequest, _GENERATE))


def decode_chat(body: bytes) -> ChatRequest:
    """Read the body of `/api/chat`. Raises BadInput with Ollama's text."""
    return _in_range(decode_request(body, ChatRequest, _CHAT))


def decode_show(body: bytes) -> ShowRequest:
    """Read the body of `/api/show`, `model` filled from `name`. Raises BadInput."""
    request = decode_request(body, ShowRequest, _SHOW)
    return request if request.model else msgspec.structs.replace(request, model=request.name)


S = TypeVar("S", bound=msgspec.Struct)
G = TypeVar("G", bound=Generation)


def decode_request(body: bytes, request: type[S], table: dict[str, Read[object]]) -> S:
    """Read a body by the readers of its fields. Raises BadInput with Go's text."""
    value = json_decoder.decode(body)
    if value is None:
        return request()
    name = request.__name__
    return msgspec.convert(read_fields(value, name, f"api.{name}", table), request)


def _in_range(request: G) -> G:
    if not 0 <= request.top_logprobs <= 20:
        raise BadInput("top_logprobs must be between 0 and 20")
    return request


def _think(value: object, where: str) -> bool | str:
    if isinstance(value, bool) or value in THINK_LEVELS:
        assert isinstance(value, bool | str)
        return value
    if isinstance(value, str):
        raise BadInput(f"invalid think value: {json_decoder.quoted(value)} (must be {_LEVELS})")
    raise BadInput(f"think must be a boolean or string ({_LEVELS})")


def keep_alive(value: object, where: str) -> float | None:
    """Read the field of that name: seconds, math.inf for ever. Raises BadInput."""
    return parse_keep_alive(value)


def _role(value: object, where: str) -> str:
    return string(value, where).lower()


def _message(value: object, where: str) -> Message:
    return msgspec.convert(read_fields(value, where, "api.Message", _MESSAGE), Message)


def _tool(value: object, where: str) -> dict[str, object]:
    if not json_decoder.is_object(value):
        raise BadInput(f"cannot take a tool that is not an object in {where}")
    return value


def _tool_call(value: object, where: str) -> PastToolCall:
    call = read_fields(value, where, "api.ToolCall", {"id": string, "function": anything})
    function = read_fields(
        call.pop("function", {}), f"{where}.function", "api.ToolCallFunction", _FUNCTION
    )
    return msgspec.convert(call | function, PastToolCall)


def _arguments(value: object, where: str) -> dict[str, object]:
    if not json_decoder.is_object(value):
        raise BadInput("Value looks like object, but can't find closing '}' symbol")
    return value


_images = list_of(read_image, "[]api.ImageData", MAX_IMAGES)

_FUNCTION: dict[str, Read[object]] = {"name": string, "arguments": _arguments}

_MESSAGE: dict[str, Read[object]] = {
    "role": _role,
    "content": string,
    "thinking": string,
    "images": _images,
    "tool_calls": list_of(_tool_call, "[]api.ToolCall", MAX_TOOL_CALLS),
    "tool_name": string,
    "tool_call_id": string,
}

_GENERATION: dict[str, Read[object]] = {
    "model": string,
    "stream": boolean,
    "format": anything,
    "keep_alive": keep_alive,
    "options": mapping,
    "think": _think,
    "truncate": boolean,
    "shift": boolean,
    "_debug_render_only": boolean,
    "logprobs": boolean,
    "top_logprobs": integer,
}

_GENERATE: dict[str, Read[object]] = _GENERATION | {
    "prompt": string,
    "suffix": string,
    "system": string,
    "template": string,
    "context": list_of(integer, "[]int", json_decoder.MAX_ELEMENTS),
    "raw": boolean,
    "images": _images,
}

_CHAT: dict[str, Read[object]] = _GENERATION | {
    "messages": list_of(_message, "[]api.Message", MAX_MESSAGES),
    "tools": list_of(_tool, "api.Tools", MAX_TOOLS),
}

_SHOW: dict[str, Read[object]] = {
    "model": string,
    "name": string,
    "system": string,
    "options": mapping,
    "verbose": boolean,
}
