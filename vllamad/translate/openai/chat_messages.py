"""The messages of `/v1/chat/completions`, checked and rebuilt key by key for the engine.

Images and audio are inline, never URLs. `conversation/roles.py` fits the conversation to the
model's template.
"""

from __future__ import annotations

import re

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.content.images import read_image
from vllamad.translate.engine.request_fields import read_inline_image
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import (
    Read,
    anything,
    go_type,
    list_of,
    lowered,
    read_fields,
    string,
)

MAX_TOOL_CALLS = 512  # in one message

_AUDIO = re.compile(r"[a-z0-9]{1,10}")  # a format: wav, mp3, flac ...


def read_chat_message(value: object, where: str) -> dict[str, object]:
    """Read one message; null fields are left out except `content`. Raises BadInput."""
    fields = read_fields(value, where, "openai.Message", _MESSAGE)
    # The engine requires a role, which a template may ignore.
    fields.setdefault("role", "")
    fields.setdefault("content", fields.pop("refusal", None))
    return fields


def _role(value: object, where: str) -> str:
    return string(value, where).lower()


def _content(value: object, where: str) -> object:
    if json_decoder.is_list(value):
        return [_part(part) for part in value]
    if not isinstance(value, str):
        raise BadInput(f"invalid message content type: {go_type(value)}")
    return value


def _part(value: object) -> dict[str, object]:
    """Rebuild one content part: text, an inline image or inline audio, never a URL."""
    part = lowered(value) if json_decoder.is_object(value) else {}
    match part.get("type"):
        case "text" if isinstance(text := part.get("text"), str):
            return {"type": "text", "text": text}
        case "refusal" if isinstance(text := part.get("refusal"), str):
            return {"type": "text", "text": text}
        case "image_url":
            return {
                "type": "image_url",
                "image_url": {"url": read_inline_image(part.get("image_url"))},
            }
        case "input_audio":
            return {"type": "input_audio", "input_audio": _audio(part.get("input_audio"))}
        case _:
            raise BadInput("invalid message format")


def _audio(value: object) -> dict[str, object]:
    audio = lowered(value) if json_decoder.is_object(value) else {}
    data, form = audio.get("data"), audio.get("format")
    if not isinstance(data, str) or not isinstance(form, str) or not _AUDIO.fullmatch(form):
        raise BadInput("invalid input_audio format")
    return {"data": read_image(data, "input_audio").data, "format": form}


def _tool_call(value: object, where: str) -> dict[str, object]:
    """Read an earlier call of the assistant; the engine requires its id and arguments."""
    call = read_fields(value, where, "openai.ToolCall", {"id": string, "function": anything})
    function = read_fields(
        call.get("function", {}), f"{where}.function", "openai.ToolCallFunction", _FUNCTION
    )
    return {
        "id": call.get("id", ""),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": function.get("arguments", "")},
    }


def _arguments(value: object, where: str) -> str:
    """The JSON text of a call's arguments; some clients send the object itself."""
    if json_decoder.is_object(value):
        return msgspec.json.encode(value).decode()
    if not isinstance(value, str):
        raise BadInput("invalid tool call arguments")
    return value


_FUNCTION: dict[str, Read[object]] = {"name": string, "arguments": _arguments}

_MESSAGE: dict[str, Read[object]] = {
    "role": _role,
    "content": _content,
    "name": string,
    "reasoning": string,
    "reasoning_content": string,
    "refusal": string,
    "tool_call_id": string,
    "tool_calls": list_of(_tool_call, "[]openai.ToolCall", MAX_TOOL_CALLS),
}
