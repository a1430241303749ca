"""Adds the system message, history and parameters of a model to a relayed request.

The counterpart of `ollama/to_engine.py` for the routes of `/v1`, whose requests the client builds:
fields of the client win over those of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vllamad.core.overlay import EMPTY_OVERLAY, Overlay
from vllamad.translate.conversation.relayed_requests import RequestBody
from vllamad.translate.go.json_decoder import is_list, is_object
from vllamad.translate.ollama.options import sampling

_SAMPLED: Final = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "seed": "seed", "stop": "stop", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "repeat_penalty": "repetition_penalty",
    "num_predict": "max_tokens", "num_ctx": "max_tokens",
}  # fmt: skip

# The names of the fields of completions on each route that has them.
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
    "/v1/audio/transcriptions": {name: name for name in ("temperature", "top_p", "seed")},
    "/v1/audio/translations": {name: name for name in ("temperature", "top_p", "seed")},
}  # fmt: skip


# The routes where Ollama adds the options of the model, and its defaults below them.
_OLLAMA_DEFAULTS: Final = {"/v1/messages": ("temperature", "top_p", "top_k")}


def add_model_defaults(
    path: str,
    body: RequestBody,
    overlay: Overlay,
    context_length: int,
    stored: Mapping[str, object],
) -> RequestBody:
    """Add the settings of `overlay` to a request for `path` where the client sets none.

    `stored` are the model's options, with those of its checkpoint: on `/v1/messages` they and
    Ollama's defaults replace missing fields.
    """
    defaults = _OLLAMA_DEFAULTS.get(path, ())
    if defaults:
        options = sampling(stored, {}, context_length)
        body = {name: options[name] for name in defaults} | body
    if overlay == EMPTY_OVERLAY:
        return body
    return _parameters(path, body, overlay, context_length) | _messages(path, body, overlay)


def _parameters(path: str, body: RequestBody, overlay: Overlay, context_length: int) -> RequestBody:
    fields = _FIELDS.get(path, {})
    sampled = sampling(overlay.parameters, {}, context_length)
    named = {_SAMPLED[name] for name in overlay.parameters if name in _SAMPLED}
    if "max_completion_tokens" in body:
        named.discard("max_tokens")
    return {fields[name]: sampled[name] for name in named & fields.keys() & sampled.keys()} | body


def _messages(path: str, body: RequestBody, overlay: Overlay) -> RequestBody:
    history: list[object] = [
        {"role": turn.role, "content": turn.content} for turn in overlay.messages
    ]
    messages = body.get("messages")
    fields: RequestBody = {"messages": [*history, *messages]} if is_list(messages) else {}
    if not overlay.system:
        return fields
    match path:
        case "/v1/chat/completions" if is_list(messages) and not any(map(_is_system, messages[:1])):
            system: RequestBody = {"role": "system", "content": overlay.system}
            return {"messages": [system, *history, *messages]}
        case "/v1/messages" | "/v1/messages/count_tokens":
            return fields | {"system": body.get("system") or overlay.system}
        case "/v1/responses":
            return {"instructions": body.get("instructions") or overlay.system}
        case _:
            return fields


def _is_system(message: object) -> bool:
    return is_object(message) and message.get("role") in ("system", "developer")
