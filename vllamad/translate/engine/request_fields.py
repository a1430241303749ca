"""What of a client's request may reach the engine? The rules that all relayed routes share.

Which fields a route has is its own file's business; here is how they are taken and bounded.
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

# In a request that was read: the kinds of what was left out of it, for the caller to log.
LEFT_OUT = "left_out"

_OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls")
_FORMATS = ("text", "json_object", "json_schema")
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "ultra", "max", "none")


def read_stop(value: object, where: str) -> object:
    """Read a stop string, or a list of them, with Ollama's text for what is none."""
    for one in value if json_decoder.is_list(value) else [value]:
        if not isinstance(one, str):
            raise BadInput(f"invalid type for 'stop' field: {go_type(one)}")
    return value


read_stop_ids = list_of(whole, "[]int", MAX_STOP_IDS)

_IMAGE = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp|gif))?;base64,")
_NO_URLS = "image URLs are not currently supported, please use base64 encoded data instead"


def read_request(
    body: bytes, struct: str, allowed: frozenset[str], *, package: str = "openai"
) -> tuple[str, dict[str, object], dict[str, object]]:
    """Read a body: the model's name, the whole request, and what of it is allowed.

    Keys count in any case, null is absent, numbers are brought into the engine's range, and what
    needs tools goes where there are none. Raises BadInput; its messages call the request by the
    Go names `package` and `struct`.
    """
    if not body.strip():
        raise BadInput("EOF")
    value = json_decoder.decode(body)
    if value is not None and not json_decoder.is_object(value):
        raise misfit(value, struct, f"{package}.{struct}")
    asked = lowered(value or {})
    name = asked.get("model")
    if not isinstance(name, str | None):
        raise misfit(name, f"{struct}.model", "string")
    if not name:
        raise BadInput("model is required")
    kept = in_range(pick_allowed(asked, allowed))
    # vLLM would take 1 and "yes" for true, and stream where we expect one object.
    boolean(kept.get("stream", False), f"{struct}.stream")
    for items, limit in (("messages", MAX_MESSAGES), ("tools", MAX_TOOLS)):
        value = asked.get(items)
        if json_decoder.is_list(value) and len(value) > limit:
            raise BadInput(f"cannot take {len(value)} {items}, at most {limit}")
    tools = kept.get("tools")
    for tool in tools if json_decoder.is_list(tools) else ():
        vet_size(tool, "tool")
    return name, asked, kept if asked.get("tools") else without_tools(kept)


def keeping_model_name(
    decode: Callable[[bytes], tuple[str, dict[str, object]]],
) -> Callable[[bytes], tuple[str, dict[str, object] | BadInput]]:
    """Make a decoder that returns a fault beside the model's name: a missing model is told first.

    It raises BadInput only where there is no name.
    """

    def decode_model_first(body: bytes) -> tuple[str, dict[str, object] | BadInput]:
        try:
            return decode(body)
        except BadInput as error:
            return read_request(body, "", frozenset())[0], error

    return decode_model_first


def without_tools(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of a request that has no tools, or none that are left, without what needs them.

    The engine refuses an empty list of tools, and a choice among none; Ollama ignores both.
    """
    return {key: value for key, value in fields.items() if key not in _OF_TOOLS}


def refuse_unsupported(asked: Mapping[str, object], reasons: Mapping[str, str]) -> None:
    """Refuse what would change the answer and cannot be done; raises BadInput with the reason."""
    for field, reason in reasons.items():
        if asked.get(field):
            raise BadInput(f"{field} is not supported: {reason}")


def check_bounds(fields: Mapping[str, object], name: str, low: int, high: int) -> None:
    """Refuse a field that is there and no whole number from `low` to `high`."""
    value = fields.get(name, low)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadInput(f"{name} must be between {low} and {high}")


def pick_allowed(fields: Mapping[str, object], allowed: frozenset[str]) -> dict[str, object]:
    """The fields that are allowed and not null, whatever the case of their keys."""
    return {key: value for key, value in lowered(fields).items() if key in allowed}


def check_answer_format(value: object, what: str) -> None:
    """Refuse a form of answers that the engine cannot or must not make; raises BadInput."""
    if not json_decoder.is_object(value):
        return
    kind, inner = value.get("type"), value.get("json_schema", value)
    if kind not in _FORMATS:
        raise BadInput(f"{what}: type {json_decoder.quoted(str(kind)[:40])} is not supported")
    if kind == "json_schema" and json_decoder.is_object(inner):
        vet(inner.get("schema"), what)


def read_effort(value: object) -> str | None:
    """How much a model shall think, in vLLM's words; None for nothing said. Raises BadInput."""
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
    """The address of a picture, if it is no address but the picture itself. Raises BadInput."""
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
