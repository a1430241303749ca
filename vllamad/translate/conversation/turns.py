"""Reading and building chat messages: role, text, tool calls.

Messages have the form of OpenAI's chat API. Content parts other than text are never read, so they
may have the form of any API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vllamad.translate.go.json_decoder import is_list, is_object

ChatMessage = dict[str, object]

FILLER: Final = "..."  # the text of a turn that a template requires and the conversation lacks
_TEXTS: Final = ("text", "input_text", "output_text")
_THOUGHTS: Final = ("thinking", "reasoning")  # parts that are not part of the answer
_APART: Final = "\n\n"


def role_of(message: ChatMessage) -> str:
    return str(message.get("role"))


def calls_of(message: ChatMessage) -> list[ChatMessage]:
    """The tool calls of an assistant's message."""
    calls = message.get("tool_calls")
    return [call for call in calls if is_object(call)] if is_list(calls) else []


def has_content(message: ChatMessage) -> bool:
    """True if the content has any text, image or audio."""
    return any(map(_part_has_content, _parts(message.get("content"))))


def with_single_text(message: ChatMessage) -> ChatMessage:
    """The message with its text parts joined into one text; unchanged if it has other parts.

    Parts are joined with newlines, as vLLM joins them.
    """
    content = message.get("content")
    if not is_list(content) or not all(map(is_text, content)):
        return message
    return message | {"content": "\n".join(filter(None, map(text_of, content)))}


def is_text(part: object) -> bool:
    return is_object(part) and part.get("type") in _TEXTS


def text_of(part: object) -> str:
    return str(part.get("text") or "") if is_object(part) else ""


def make_message(role: str, content: object = FILLER) -> ChatMessage:
    return {"role": role, "content": content}


def join_contents(contents: Sequence[object]) -> object:
    """Join contents: texts with a blank line between them, other contents as a list of parts."""
    if all(content is None or isinstance(content, str) for content in contents):
        return _APART.join(str(content) for content in contents if content)
    return [part for content in contents for part in _parts(content)]


def merge_messages(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    """Merge two messages of one role, with the calls of both."""
    both = first | {key: value for key, value in second.items() if key not in first}
    both["content"] = join_contents([first.get("content"), second.get("content")])
    if thoughts := [
        str(message["reasoning"]) for message in (first, second) if message.get("reasoning")
    ]:
        both["reasoning"] = _APART.join(thoughts)
    return both


def _parts(content: object) -> list[object]:
    if is_list(content):
        return content
    return [{"type": "text", "text": content}] if content else []


def _part_has_content(part: object) -> bool:
    if is_text(part):
        return bool(text_of(part).strip())
    return not (is_object(part) and part.get("type") in _THOUGHTS)
