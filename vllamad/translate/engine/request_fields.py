"""The rules of request fields that all relayed routes share.

The fields of each route are in its own file; this file reads and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vllamad.errors import BadInput
from vllamad.translate.content.images import read_image
from vllamad.translate.content.json_schema import vet, vet_size
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import boolean, go_type, list_of, lowered, misfit, whole
from vllamad.translate.ollama.options import in_range

MAX_MESSAGES = 10_000
MAX_TOOLS = 512
MAX_STOP_IDS = 1024

# The key of a request that was read for the kinds of items left out, which the caller logs.
LEFT_OUT = "left_out"

_OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls")
_FORMATS = ("text", "json_object", "json_schema")
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "ultra", "max", "none")


def read_stop(value: object, where: str) -> object:
    """Read a stop string or a list of them. Raises BadInput with Ollama's text."""
    for item in value if json_decoder.is_list(value) else [value]:
        if not isinstance(item, str):
            raise BadInput(f"invalid type for 'stop' field: {go_type(item)}")
    return value


read_stop_ids = list_of(whole, "[]int", MAX_STOP_IDS)

_IMAGE = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp|gif))?;base64,")
_NO_URLS = "image URLs are not currently supported, please use base64 encoded data instead"


def read_request(
    body: bytes, struct: str, allowed: frozenset[str], *, package: str = "openai"
) -> tuple[str, dict[str, object], dict[str, object]]:
    """Read a body: the model's name, the whole request, and its allowed fields.

    Keys match in any case, null counts as absent, numbers are clamped to the engine's range, and
    fields that need tools are removed if there are none. Raises BadInput; its messages name the
    request by the Go names `package` and `struct`.
    """
    if not body.strip():
        raise BadInput("EOF")
    value = json_decoder.decode(body)
    if value is not None and not json_decoder.is_object(value):
        raise misfit(value, struct, f"{package}.{struct}")
    request = lowered(value or {})
    name = request.get("model")
    if not isinstance(name, str | None):
        raise misfit(name, f"{struct}.model", "string")
    if not name:
        raise BadInput("model is required")
    kept = in_range(pick_allowed(request, allowed))
    # vLLM reads 1 and "yes" as true, and would stream where we expect one object.
    boolean(kept.get("stream", False), f"{struct}.stream")
    for items, limit in (("messages", MAX_MESSAGES), ("tools", MAX_TOOLS)):
        value = request.get(items)
        if json_decoder.is_list(value) and len(value) > limit:
            raise BadInput(f"cannot take {len(value)} {items}, at most {limit}")
    tools = kept.get("tools")
    for tool in tools if json_decoder.is_list(tools) else ():
        vet_size(tool, "tool")
    return name, request, kept if request.get("tools") else without_tools(kept)


def keeping_model_name(
    decode: Callable[[bytes], tuple[str, dict[str, object]]],
) -> Callable[[bytes], tuple[str, dict[str, object] | BadInput]]:
    """Make a decoder that returns its error with the model's name: a missing model comes first.

    It raises BadInput only if there is no name.
    """

    def decode_model_first(body: bytes) -> tuple[str, dict[str, object] | BadInput]:
        try:
            return decode(body)
        except BadInput as error:
            return read_request(body, "", frozenset())[0], error

    return decode_model_first


def without_tools(fields: Mapping[str, object]) -> dict[str, object]:
    """Remove the fields that need tools from a request without tools.

    The engine refuses an empty list of tools, and a choice without tools; Ollama ignores both.
    """
    return {key: value for key, value in fields.items() if key not in _OF_TOOLS}


def refuse_unsupported(request: Mapping[str, object], reasons: Mapping[str, str]) -> None:
    """Refuse unsupported fields that would change the response. Raises BadInput with the reason."""
    for field, reason in reasons.items():
        if request.get(field):
            raise BadInput(f"{field} is not supported: {reason}")


def check_bounds(fields: Mapping[str, object], name: str, low: int, high: int) -> None:
    """Refuse a field that is present and no whole number from `low` to `high`."""
    value = fields.get(name, low)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{name} must be between {low} and {high}")


def pick_allowed(fields: Mapping[str, object], allowed: frozenset[str]) -> dict[str, object]:
    """The allowed fields that are not null; keys match in any case."""
    return {key: value for key, value in lowered(fields).items() if key in allowed}


def check_answer_format(value: object, what: str) -> None:
    """Refuse a response format that the engine does not support. Raises BadInput."""
    if not json_decoder.is_object(value):
        return
    kind, inner = value.get("type"), value.get("json_schema", value)
    if kind not in _FORMATS:
        raise BadInput(f"{what}: type {json_decoder.quoted(str(kind)[:40])} is not supported")
    if kind == "json_schema" and json_decoder.is_object(inner):
        vet(inner.get("schema"), what)


def read_effort(value: object) -> str | None:
    """Read the reasoning effort in vLLM's terms; None if it is not set. Raises BadInput."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value in _EFFORTS:
        return "max" if value == "ultra" else value
    listed = ", ".join(map(json_decoder.quoted, _EFFORTS[:-1]))
    raise BadInput(
        f"invalid reasoning value: {json_decoder.quoted(str(value)[:40])}"
        f' (must be {listed}, or "{_EFFORTS[-1]}")'
    )


def read_inline_image(image: object) -> str:
    """Read an image URL that contains the image itself. Raises BadInput for any other."""
    url = lowered(image).get("url") if json_decoder.is_object(image) else image
    if not isinstance(url, str):
        raise BadInput("invalid image input")
    if not url.startswith("data:"):
        raise BadInput(_NO_URLS)
    head = _IMAGE.match(url)
    if head is None:
        raise BadInput("invalid image input")
    picture = read_image(url[head.end() :], "image_url")
    if not picture.media_type.startswith("image/"):
        raise BadInput("invalid image input")
    return f"data:{picture.media_type};base64,{picture.data}"
