"""What a model adds to a relayed request: its system message, history and parameters.

The counterpart, for the routes of `/v1`, of what `requests.py` makes of them: there the request is
ours to build, here it is the client's, and what the client says itself stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vllamad.core.overlay import EMPTY_OVERLAY, Overlay
from vllamad.translate.go.json_decoder import is_list, is_object
from vllamad.translate.ollama.options import sampling

Body = dict[str, object]

_SAMPLED: Final = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "seed": "seed", "stop": "stop", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "repeat_penalty": "repetition_penalty",
    "num_predict": "max_tokens", "num_ctx": "max_tokens",
}  # fmt: skip

# What each route calls the fields of completions, where it has them.
_FIELDS: Final = {
    "/v1/chat/completions": {field: field for field in _SAMPLED.values()},
    "/v1/completions": {field: field for field in _SAMPLED.values()},
    "/v1/responses": {
        "temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
        "max_tokens": "max_output_tokens",
    },
    "/v1/messages": {
        "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "stop": "stop_sequences",
    },
}  # fmt: skip


# Where Ollama samples with the options of the model, and with its own defaults below them.
_OLLAMA_DEFAULTS: Final = {"/v1/messages": ("temperature", "top_p", "top_k")}


def add_model_defaults(
    path: str, body: Body, overlay: Overlay, context_length: int, stored: Mapping[str, object]
) -> Body:
    """Add what `overlay` says to a request for `path`, wherever the client says nothing of it.

    `stored` are the model's options, those of its checkpoint included: on `/v1/messages` they, and
    Ollama's defaults, stand for what the client leaves out.
    """
    defaults = _OLLAMA_DEFAULTS.get(path, ())
    if defaults:
        options = sampling(stored, {}, context_length)
        body = {name: options[name] for name in defaults} | body
    if overlay == EMPTY_OVERLAY:
        return body
    return _parameters(path, body, overlay, context_length) | _messages(path, body, overlay)


def _parameters(path: str, body: Body, overlay: Overlay, context_length: int) -> Body:
    fields = _FIELDS.get(path, {})
    own = sampling(overlay.parameters, {}, context_length)
    named = {_SAMPLED[name] for name in overlay.parameters if name in _SAMPLED}
    if "max_completion_tokens" in body:
        named.discard("max_tokens")
    return {fields[name]: own[name] for name in named & fields.keys() & own.keys()} | body


def _messages(path: str, body: Body, overlay: Overlay) -> Body:
    history: list[object] = [
        {"role": turn.role, "content": turn.content} for turn in overlay.messages
    ]
    given = body.get("messages")
    fields: Body = {"messages": [*history, *given]} if is_list(given) else {}
    if not overlay.system:
        return fields
    match path:
        case "/v1/chat/completions" if is_list(given) and not any(map(_is_system, given[:1])):
            system: Body = {"role": "system", "content": overlay.system}
            return {"messages": [system, *history, *given]}
        case "/v1/messages" | "/v1/messages/count_tokens":
            return fields | {"system": body.get("system") or overlay.system}
        case "/v1/responses":
            return {"instructions": body.get("instructions") or overlay.system}
        case _:
            return fields


def _is_system(message: object) -> bool:
    return is_object(message) and message.get("role") in ("system", "developer")
