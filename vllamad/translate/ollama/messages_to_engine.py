"""Writes Ollama's messages as vLLM reads them: images, tool calls, tool results, thinking."""

from __future__ import annotations

import msgspec

from vllamad.translate.content.images import Image
from vllamad.translate.ollama.request import Message


class _Call(msgspec.Struct):
    """A tool call without its result so far."""

    id: str
    name: str


def engine_messages(messages: list[Message]) -> list[dict[str, object]]:
    """Write messages as vLLM reads them.

    Calls without an id get one, and tool messages without one are matched to the calls before
    them, by name, else by position.
    """
    written: list[dict[str, object]] = []
    open_calls: list[_Call] = []
    for turn, message in enumerate(messages):
        fields: dict[str, object] = {"role": message.role, "content": _content(message)}
        if message.role == "assistant":
            if message.thinking:
                fields["reasoning"] = message.thinking
            if message.tool_calls:
                fields["tool_calls"] = _tool_calls(message, turn)
                open_calls = [
                    _Call(_id(message, index, turn), call.function.name)
                    for index, call in enumerate(message.tool_calls)
                ]
        if message.role == "tool":
            fields |= _tool_answer(message, open_calls)
        written.append(fields)
    return written


def _content(message: Message) -> str | list[dict[str, object]]:
    if not message.images:
        return message.content
    text: list[dict[str, object]] = [{"type": "text", "text": message.content}]
    return text[: bool(message.content)] + [_part(image) for image in message.images]


def _part(image: Image) -> dict[str, object]:
    kind, _, form = image.media_type.partition("/")
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": image.data, "format": form}}
    url = f"data:{image.media_type};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_calls(message: Message, turn: int) -> list[dict[str, object]]:
    return [
        {
            "id": _id(message, index, turn),
            "type": "function",
            "function": {
                "name": call.function.name,
                "arguments": msgspec.json.encode(call.function.arguments).decode(),
            },
        }
        for index, call in enumerate(message.tool_calls)
    ]


def _id(message: Message, index: int, turn: int) -> str:
    return message.tool_calls[index].id or f"call_{turn}_{index}"


def _tool_answer(message: Message, open_calls: list[_Call]) -> dict[str, object]:
    call_id = message.tool_call_id
    call = _answered(message, open_calls)
    if call is not None:
        open_calls.remove(call)
        call_id = call.id
    fields: dict[str, object] = {"tool_call_id": call_id} if call_id else {}
    if message.tool_name:
        fields["name"] = message.tool_name
    return fields


def _answered(message: Message, open_calls: list[_Call]) -> _Call | None:
    if message.tool_call_id:
        return next((call for call in open_calls if call.id == message.tool_call_id), None)
    named = (call for call in open_calls if call.name == message.tool_name)
    return next(named, open_calls[0] if open_calls else None)
