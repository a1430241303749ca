"""Which fields of an OpenAI request reach the engine? A list of what is allowed, nothing else.

Values are left to the engine to judge, except those that could hurt it: counts are bounded,
pictures must be inline, and a client brings no chat template, embeddings or priorities.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import BadInput
from vllamad.wire import gojson
from vllamad.wire.allowed import bounded, check_format, effort, inline, only, read_request, refuse
from vllamad.wire.fields import misfit

MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_PROMPTS = 16

_SAMPLING = frozenset({
    "frequency_penalty", "ignore_eos", "include_stop_str_in_output", "logit_bias", "logprobs",
    "max_tokens", "min_p", "min_tokens", "n", "presence_penalty", "repetition_penalty", "seed",
    "skip_special_tokens", "stop", "stop_token_ids", "stream", "temperature", "top_k", "top_p",
    "user",
})  # fmt: skip
_CHAT = _SAMPLING | {
    "include_reasoning", "max_completion_tokens", "parallel_tool_calls", "reasoning_effort",
    "response_format", "tool_choice", "tools", "top_logprobs",
}  # fmt: skip
_COMPLETION = _SAMPLING | {"echo", "prompt", "response_format", "suffix"}
_REFUSED = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "answers are text",
    "web_search_options": "nothing is searched for",
}
_STREAM_OPTIONS = frozenset({"include_usage", "continuous_usage_stats"})
_MESSAGE = frozenset({
    "content", "name", "reasoning", "reasoning_content", "refusal", "role", "tool_call_id",
    "tool_calls",
})  # fmt: skip


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `/v1/models`; `created` is seconds since the epoch."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "library"


def models(entries: list[ListedModel]) -> bytes:
    """The body of `/v1/models`, newline included."""
    return msgspec.json.encode({"object": "list", "data": entries}) + b"\n"


def model(entry: ListedModel) -> bytes:
    """The body of `/v1/models/{id}`, newline included."""
    return msgspec.json.encode(entry) + b"\n"


def chat_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/chat/completions` body: the model asked for, and the body for the engine.

    The caller puts the worker's own name into `model`. Raises BadInput.
    """
    name, asked, kept = _sampled(body, "ChatCompletionRequest", _CHAT)
    refuse(asked, _REFUSED)
    bounded(kept, "top_logprobs", 0, MAX_LOGPROBS)
    messages = asked.get("messages")
    if not gojson.is_list(messages) or not messages:
        raise BadInput("[] is too short - 'messages'")
    kept["messages"] = [_message(message) for message in messages]
    reasoning = asked.get("reasoning")
    if gojson.is_object(reasoning) and reasoning.get("effort"):
        kept["reasoning_effort"] = reasoning["effort"]
    if (wanted := effort(kept.pop("reasoning_effort", None))) is not None:
        kept["reasoning_effort"] = wanted
    return name, kept


def completion_request(body: bytes) -> tuple[str, dict[str, object]]:
    """Read a `/v1/completions` body, as `chat_request` does. The prompt is used as it is."""
    name, _, kept = _sampled(body, "CompletionRequest", _COMPLETION)
    bounded(kept, "logprobs", 0, MAX_LOGPROBS)
    prompt = kept.get("prompt")
    if (
        gojson.is_list(prompt)
        and len(prompt) > MAX_PROMPTS
        and not all(isinstance(token, int) for token in prompt)  # one prompt, as token ids
    ):
        raise BadInput(f"cannot take {len(prompt)} prompts, at most {MAX_PROMPTS}")
    return name, kept


def _sampled(
    body: bytes, struct: str, allowed: frozenset[str]
) -> tuple[str, dict[str, object], dict[str, object]]:
    """Read what chat and completions share; gives what `read_request` gives."""
    name, asked, kept = read_request(body, struct, allowed)
    bounded(kept, "n", 1, MAX_CHOICES)
    check_format(kept.get("response_format"), "response_format")
    options = asked.get("stream_options")
    if gojson.is_object(options) and kept.get("stream"):
        kept["stream_options"] = only(options, _STREAM_OPTIONS)
    return name, asked, kept


def _message(value: object) -> dict[str, object]:
    if not gojson.is_object(value):
        raise misfit(value, "ChatCompletionRequest.messages", "openai.Message")
    message = only(value, _MESSAGE)
    content = message.get("content")
    if gojson.is_list(content):
        message["content"] = [_part(part) for part in content]
    elif content is not None and not isinstance(content, str):
        raise BadInput("invalid message format")
    return message


def _part(value: object) -> dict[str, object]:
    """Rebuild one content part: text, an inline picture or inline sound, never an address."""
    kind = value.get("type") if gojson.is_object(value) else None
    if not gojson.is_object(value) or kind not in ("text", "image_url", "input_audio"):
        raise BadInput("invalid message format")
    content = value.get(str(kind))
    if kind == "image_url":
        content = {"url": inline(content)}
    return {"type": kind, str(kind): content}
