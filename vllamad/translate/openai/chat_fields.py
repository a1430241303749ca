"""The fields of an OpenAI request that reach the engine: an allowlist.

Each field has its type; errors are in Go's words as Ollama's are, before the engine sees the
request. A client cannot send chat templates, embeddings or priorities.
"""

from __future__ import annotations

from typing import cast

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.content.json_schema import relaxed
from vllamad.translate.engine.request_fields import (
    LEFT_OUT,
    MAX_MESSAGES,
    check_answer_format,
    check_bounds,
    read_effort,
    read_request,
    read_stop,
    read_stop_ids,
    refuse_unsupported,
)
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import (
    Read,
    anything,
    boolean,
    list_of,
    lowered,
    misfit,
    number,
    read_fields,
    string,
    whole,
)
from vllamad.translate.openai.chat_messages import read_chat_message
from vllamad.translate.openai.chat_tools import hosted_kinds, read_tools, with_tool_choice

MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_PROMPTS = 16

_REFUSED = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "answers are text",
    "web_search_options": "nothing is searched for",
}


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `/v1/models`; `created` is seconds since the epoch."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "library"


def encode_model_list(entries: list[ListedModel]) -> bytes:
    """The body of `/v1/models`, newline included."""
    return msgspec.json.encode({"object": "list", "data": entries}) + b"\n"


def encode_model(entry: ListedModel) -> bytes:
    """The body of `/v1/models/{id}`, newline included."""
    return msgspec.json.encode(entry) + b"\n"


def chat_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/chat/completions` body: the model's name, and the body for the engine.

    The caller puts the worker's served name into `model`, and removes LEFT_OUT. Raises BadInput.
    """
    name, request, kept = _read(body, _CHAT_STRUCT, _CHAT)
    refuse_unsupported(request, _REFUSED)
    check_bounds(kept, "top_logprobs", 0, MAX_LOGPROBS)
    if not kept.get("logprobs"):
        kept.pop("top_logprobs", None)  # as Ollama does; the engine refuses it
    if not kept.get("messages"):
        raise BadInput("[] is too short - 'messages'")
    effort, reasoning = kept.pop("reasoning_effort", None), request.get("reasoning")
    if json_decoder.is_object(reasoning):
        effort = lowered(reasoning).get("effort") or effort
    if (effort := read_effort(effort)) is not None:
        kept["reasoning_effort"] = effort
    if left_out := hosted_kinds(request.get("tools")):
        return name, with_tool_choice(kept) | {LEFT_OUT: left_out}
    return name, with_tool_choice(kept)


def completion_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/completions` body, as `chat_request` does. The prompt is used as it is."""
    name, _, kept = _read(body, _COMPLETION_STRUCT, _COMPLETION)
    check_bounds(kept, "logprobs", 0, MAX_LOGPROBS)
    if not kept.get("prompt") and not kept.get("suffix"):
        raise BadInput("prompt is required")
    return name, kept


def _read(
    body: bytes, struct: str, table: dict[str, Read[object]]
) -> tuple[str, dict[str, object], dict[str, object]]:
    """Read the fields that chat and completions share; returns the same as `read_request`."""
    name, request, allowed = read_request(body, struct, frozenset(table))
    kept = read_fields(allowed, struct, f"openai.{struct}", table)
    check_bounds(kept, "n", 1, MAX_CHOICES)
    if not kept.get("stream"):
        kept.pop("stream_options", None)
    if kept.get("response_format") is None:
        kept.pop("response_format", None)
    return name, request, kept


def _prompt(value: object, where: str) -> object:
    """Read a prompt: a text, a list of texts, token ids, or a list of token ids."""
    if isinstance(value, str) or _are_tokens(value):
        return value
    if not json_decoder.is_list(value):
        raise misfit(value, where, "string")
    if len(value) > MAX_PROMPTS:
        raise BadInput(f"cannot take {len(value)} prompts, at most {MAX_PROMPTS}")
    alike = _are_tokens if json_decoder.is_list(value[0]) else _is_text
    if not all(map(alike, value)):
        raise BadInput("prompt must be a text, a list of texts, or token ids")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_tokens(value: object) -> bool:
    """True for a list of token ids. Raises BadInput for an id below zero."""
    if not json_decoder.is_list(value) or not all(type(item) is int for item in value):
        return False
    if value and (lowest := min(cast("list[int]", value))) < 0:
        raise BadInput(f"prompt has a token id below zero: {lowest}")
    return True


def _biases(value: object, where: str) -> dict[str, object]:
    """Read the biases that are added to the logits, by token id."""
    if not json_decoder.is_object(value):
        raise misfit(value, where, "map[string]float64")
    for token, bias in value.items():
        number("float64")(bias, where)
        if not token.isdecimal():
            raise BadInput(f"logit_bias: {json_decoder.quoted(token[:40])} is no token id")
    return value


def _response_format(value: object, where: str) -> dict[str, object] | None:
    """The response format as the engine expects it; None for plain text."""
    fields = lowered(value) if json_decoder.is_object(value) else None
    if fields is None:
        raise misfit(value, where, "openai.ResponseFormat")
    if json_decoder.is_object(inner := fields.get("json_schema")):
        fields["json_schema"] = inner = lowered(inner)
    check_answer_format(fields, "response_format")
    if fields["type"] == "text":
        return None
    schema = inner.get("schema") if json_decoder.is_object(inner) else None
    if fields["type"] == "json_object" or not json_decoder.is_object(schema):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "schema", "schema": relaxed(schema)}}


def _stream_options(value: object, where: str) -> dict[str, object]:
    return read_fields(value, where, "openai.StreamOptions", _STREAM_OPTIONS)


_STREAM_OPTIONS: dict[str, Read[object]] = {
    "include_usage": boolean,
    "continuous_usage_stats": boolean,
}


def _sampling(real: str) -> dict[str, Read[object]]:
    """The fields that both routes share; `real` is the Go type of their numbers in Ollama."""
    return {
        "frequency_penalty": number(real),
        "ignore_eos": boolean,
        "include_stop_str_in_output": boolean,
        "logit_bias": _biases,
        "max_tokens": whole,
        "min_p": number(real),
        "min_tokens": whole,
        "n": whole,
        "presence_penalty": number(real),
        "repetition_penalty": number(real),
        "response_format": _response_format,
        "seed": whole,
        "skip_special_tokens": boolean,
        "stop": read_stop,
        "stop_token_ids": read_stop_ids,
        "stream": boolean,
        "stream_options": _stream_options,
        "temperature": number(real),
        "top_k": whole,
        "top_p": number(real),
    }


_CHAT_STRUCT, _CHAT = (
    "ChatCompletionRequest",
    _sampling("float64")
    | {
        "include_reasoning": boolean,
        "logprobs": boolean,
        "max_completion_tokens": whole,
        "messages": list_of(read_chat_message, "[]openai.Message", MAX_MESSAGES),
        "parallel_tool_calls": boolean,
        "reasoning_effort": anything,
        "tool_choice": anything,
        "tools": read_tools,
        "top_logprobs": whole,
    },
)
_COMPLETION_STRUCT, _COMPLETION = (
    "CompletionRequest",
    _sampling("float32")
    | {
        "echo": boolean,
        "logprobs": whole,
        "prompt": _prompt,
        "suffix": string,
    },
)
