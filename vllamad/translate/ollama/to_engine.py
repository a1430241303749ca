"""Turns an Ollama request into one call of vLLM's OpenAI routes.

The call is built key by key, so that unknown keys of a client never reach the engine. Does no I/O:
the caller passes the model's properties as `ModelTraits`.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import BadInput, EngineRefused, NotSupported
from vllamad.translate.content.fill_in_middle import FimTokens, fill_in
from vllamad.translate.content.images import Image
from vllamad.translate.content.json_schema import relaxed, vet, vet_size
from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules
from vllamad.translate.engine.refusal_texts import NO_GRAMMAR
from vllamad.translate.error_bodies import INTERNAL
from vllamad.translate.go.json_decoder import is_object, quoted
from vllamad.translate.ollama.messages_to_engine import engine_messages
from vllamad.translate.ollama.options import check_options, sampling
from vllamad.translate.ollama.request import ChatRequest, GenerateRequest, Generation, Message

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

_GRAMMARS = frozenset({"response_format", "structured_outputs", "text"})
_OF_CHAT = frozenset({
    "add_generation_prompt", "chat_template_kwargs", "continue_final_message", "logprobs",
    "messages", "reasoning_effort", "tools", "top_logprobs",
})  # fmt: skip


class ModelTraits(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of the model that a request's meaning depends on."""

    full_name: str  # with host, namespace and tag, as two of Ollama's messages print it
    capabilities: frozenset[str]
    always_thinks: bool = False  # if it thinks: has no switch for it
    system: str = ""
    stored: dict[str, object] = {}  # options: the model's parameters over its generation_config
    history: list[Message] = []
    fim: FimTokens | None = None  # its tokens to fill in the middle
    writes_bos: bool = False  # its template begins with the token for the begin of a text
    rules: TemplateRules = ACCEPTS_ALL  # the rules of its template


class EngineCall(msgspec.Struct, frozen=True, kw_only=True):
    """One POST to the engine."""

    path: str
    body: dict[str, object]

    def encode(self) -> bytes:
        return msgspec.json.encode(self.body)

    def blamed_for(self, error: EngineRefused) -> BadInput | None:
        """Return the request's fault behind an internal error of the engine, or None.

        vLLM checks a grammar twice, and calls a fault found by the second check its own error.
        """
        if error.message == INTERNAL and not _GRAMMARS.isdisjoint(self.body):
            return BadInput(NO_GRAMMAR)
        return None

    def continue_from_tokens(self, tokens: list[int], request: Generation) -> EngineCall:
        """Make the same call on the completion route, with token ids in place of messages."""
        fields = {key: value for key, value in self.body.items() if key not in _OF_CHAT}
        return EngineCall(path=COMPLETIONS, body=fields | {"prompt": tokens} | _logprobs(request))


def check(request: GenerateRequest | ChatRequest, traits: ModelTraits) -> None:
    """Refuse requests that this model can never answer, in Ollama's order, before it is loaded.

    Raises BadInput or NotSupported with Ollama's text.
    """
    if isinstance(request, GenerateRequest):
        _check_raw(request)
    if request.think and "thinking" not in traits.capabilities:
        raise NotSupported(f"{quoted(request.model)} does not support thinking")
    if "completion" not in traits.capabilities:
        verb = "chat" if isinstance(request, ChatRequest) else "generate"
        raise NotSupported(f"{quoted(request.model)} does not support {verb}")
    if isinstance(request, GenerateRequest):
        if request.suffix and traits.fim is None:
            raise NotSupported(f"{traits.full_name} does not support insert")
        _check_context(request, traits)
    elif request.tools:
        if "tools" not in traits.capabilities:
            raise NotSupported(f"{traits.full_name} does not support tools")
        for tool in request.tools:
            vet_size(tool, "tool")
    check_options(request.options)
    if not request.is_empty:
        _response_format(request.format)
        _check_media(request, traits)


def chat_call(
    request: ChatRequest, traits: ModelTraits, *, served_name: str, context_length: int
) -> EngineCall:
    """Build the call that answers `/api/chat`. Raises BadInput."""
    messages = [*traits.history, *request.messages]
    if traits.system and request.messages and request.messages[0].role != "system":
        messages.insert(0, Message(role="system", content=traits.system))
    body = _chat_body(request, traits, messages, served_name, context_length)
    if request.tools:
        body["tools"] = request.tools
    return EngineCall(path=CHAT, body=body)


def generate_call(
    request: GenerateRequest, traits: ModelTraits, *, served_name: str, context_length: int
) -> EngineCall:
    """Build the call that answers `/api/generate`, raw or through the template. Raises BadInput.

    With a `context` the model's own history is left out; the caller puts the tokens back.
    """
    if request.raw or request.suffix:
        body = _common(request, traits, served_name, context_length) | _logprobs(request)
        body["prompt"] = request.prompt
        if not request.raw and traits.fim is not None:
            body["prompt"] = fill_in(traits.fim, request.prompt, request.suffix)
            body["stop_token_ids"] = list(traits.fim.ends)
        return EngineCall(path=COMPLETIONS, body=body)
    messages = [] if request.context else list(traits.history)
    messages.append(Message(role="user", content=request.prompt, images=request.images))
    if system := request.system or traits.system:
        messages.insert(0, Message(role="system", content=system))
    if request.context:
        # Nothing would separate its thoughts from its answer.
        request = msgspec.structs.replace(request, think=False)
    body = _chat_body(request, traits, messages, served_name, context_length)
    return EngineCall(path=CHAT, body=body)


def _chat_body(
    request: Generation,
    traits: ModelTraits,
    messages: list[Message],
    served_name: str,
    context_length: int,
) -> dict[str, object]:
    body = _common(request, traits, served_name, context_length)
    body |= {"messages": engine_messages(messages)}
    if messages[-1].role == "assistant" and messages[-1].content and not messages[-1].tool_calls:
        # Ollama continues the assistant's last message; vLLM would begin a new turn.
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    return body | _thinking(request.think, traits)


def _common(
    request: Generation, traits: ModelTraits, served_name: str, context_length: int
) -> dict[str, object]:
    """Return the fields that chat and completions share; a stream can be cancelled and timed."""
    body: dict[str, object] = {
        "model": served_name,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= sampling(traits.stored, request.options, context_length)
    if response_format := _response_format(request.format):
        body["response_format"] = response_format
    if isinstance(request, GenerateRequest) and not request.raw:
        body["return_token_ids"] = True  # for the context in the last line
    return body


def _logprobs(request: Generation) -> dict[str, object]:
    """Return the field of the completion route: a number, at least 1."""
    return {"logprobs": max(request.top_logprobs, 1)} if request.logprobs else {}


def _thinking(think: bool | str | None, traits: ModelTraits) -> dict[str, object]:
    """Turn a thinking model's thinking on unless `think` is false; others have no switch."""
    if "thinking" not in traits.capabilities:
        return {}
    if traits.always_thinks:
        # With thinking off, a parser would take the thought for the answer. The model with
        # levels and no switch is gpt-oss, which has three.
        if not isinstance(think, str):
            return {}
        return {"reasoning_effort": "high" if think == "max" else think}
    enabled = think is not False
    # Two names for one switch: a template knows one of them and ignores the other.
    fields: dict[str, object] = {
        "chat_template_kwargs": {"enable_thinking": enabled, "thinking": enabled}
    }
    if isinstance(think, str):
        fields["reasoning_effort"] = think
    return fields


def _response_format(value: object) -> dict[str, object] | None:
    """Read `format`: nothing, "json" or a JSON schema.

    Raises BadInput: with status 400 for a fault in a schema, 500 for any other value.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "json_object"}
    if is_object(value):
        vet(value)
        schema = {"name": "schema", "schema": relaxed(value)}
        return {"type": "json_schema", "json_schema": schema}
    text = quoted(msgspec.json.encode(value).decode())
    raise BadInput(
        f'invalid format: {text}; expected "json" or a valid JSON Schema object', status=500
    )


def _check_raw(request: GenerateRequest) -> None:
    if request.raw and (request.template or request.system or request.context):
        raise BadInput("raw mode does not support template, system, or context")
    if request.raw and request.images:
        raise BadInput("raw mode does not support images")
    if request.template:
        raise BadInput("template override is not supported")


def _check_context(request: GenerateRequest, traits: ModelTraits) -> None:
    """Refuse fields that need a template or a parser: a call with token ids has neither."""
    if not request.context or request.suffix:
        return
    if min(request.context) < 0:
        raise BadInput(f"context has a token id below zero: {min(request.context)}")
    if request.images:
        raise NotSupported("context does not support images; use /api/chat")
    if "thinking" in traits.capabilities and (request.think or traits.always_thinks):
        raise NotSupported("context does not support thinking; use /api/chat")


def images_of(request: GenerateRequest | ChatRequest) -> list[Image]:
    """Return all images and sounds of a request."""
    if isinstance(request, ChatRequest):
        return [image for message in request.messages for image in message.images]
    return request.images


def _check_media(request: GenerateRequest | ChatRequest, traits: ModelTraits) -> None:
    for image in images_of(request):
        capability = "audio" if image.media_type.startswith("audio/") else "vision"
        if capability not in traits.capabilities:
            kind = "audio" if capability == "audio" else "image"
            raise NotSupported(f"this model does not support {kind} input")
