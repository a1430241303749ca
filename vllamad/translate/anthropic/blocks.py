"""The content blocks of an Anthropic message, rebuilt key by key for the engine.

Images are inline, never URLs. An unsupported block is replaced by its text, if it has any; else it
is left out, and the caller gets its kind.
"""

from __future__ import annotations

import base64
import binascii

from vllamad.errors import BadInput
from vllamad.translate.content.images import read_image
from vllamad.translate.engine.request_fields import pick_allowed
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import lowered, string

Block = dict[str, object]

_WHERE = "MessagesRequest.messages.content"
_BLOCKS = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error"}),
}


def read_contents(value: object, where: str, left_out: set[str]) -> str | list[Block]:
    """Read the content of a message, of a tool's result, or of `system`.

    `where` names it in errors. The kinds of blocks that are left out are added to `left_out`.
    Raises BadInput.
    """
    if isinstance(value, str):
        return value
    if not json_decoder.is_list(value):
        raise BadInput(f"{where}: content must be a text or a list of blocks")
    return [rebuilt for block in value if (rebuilt := _block(block, left_out)) is not None]


def _block(value: object, left_out: set[str]) -> Block | None:
    """Rebuild a block; None for one that is left out."""
    fields = lowered(value) if json_decoder.is_object(value) else {}
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise BadInput("content block missing required 'type' field")
    if kind == "image":
        return _image(fields.get("source"), left_out)
    if kind not in _BLOCKS:
        text = _text_of(kind, fields)
        if text is None:
            left_out.add(f"block {kind[:40]}")
        return None if text is None else {"type": "text", "text": text}
    block = pick_allowed(fields, _BLOCKS[kind])
    match kind:
        case "text":
            block["text"] = string(block.get("text", ""), f"{_WHERE}.text")
        case "tool_use":
            for field in ("id", "name"):
                if not block.get(field):
                    raise BadInput(f"tool_use block missing required '{field}' field")
            block.setdefault("input", {})
        case "tool_result" if "content" in block:
            block["content"] = read_contents(block["content"], "tool_result", left_out)
        case _:
            pass
    return block


def _image(value: object, left_out: set[str]) -> Block | None:
    """Rebuild an inline image; None for one that is stored on Anthropic's servers."""
    if not json_decoder.is_object(value):
        raise BadInput("invalid image source")
    source = lowered(value)
    kind = source.get("type")
    if kind == "file":
        left_out.add("image of a stored file")
        return None
    if kind != "base64":
        raise BadInput(
            f"invalid image source type: {str(kind)[:40]}. Only base64 images are supported."
        )
    picture = read_image(source.get("data"), f"{_WHERE}.source.data")
    data: Block = {"type": "base64", "media_type": picture.media_type, "data": picture.data}
    return {"type": "image", "source": data}


def _text_of(kind: str, fields: Block) -> str | None:
    """The text of a document or a search result; None if it has none."""
    match kind:
        case "document":
            text = _document(fields.get("source"))
        case "search_result":
            text = _joined(fields.get("content"))
        case _:
            return None
    if text is None:
        return None
    heads = (fields.get(name) for name in ("title", "context", "source"))
    return "\n".join([*(head for head in heads if isinstance(head, str)), text])


def _document(value: object) -> str | None:
    source = lowered(value) if json_decoder.is_object(value) else {}
    data = source.get("data")
    match source.get("type"):
        case "text":
            return data if isinstance(data, str) else None
        case "content":
            content = source.get("content")
            return content if isinstance(content, str) else _joined(content)
        case "base64" if str(source.get("media_type")).startswith("text/"):
            return decode_text(data)
        case _:
            return None


def decode_text(data: object) -> str | None:
    """Decode base64 of UTF-8 text; None for anything else."""
    try:
        return base64.b64decode(str(data), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def _joined(blocks: object) -> str | None:
    """The texts of blocks, one on each line; None if there are none."""
    items = (
        [lowered(block) for block in blocks if json_decoder.is_object(block)]
        if json_decoder.is_list(blocks)
        else []
    )
    texts = [text for item in items if isinstance(text := item.get("text"), str)]
    return "\n".join(texts) if texts else None
