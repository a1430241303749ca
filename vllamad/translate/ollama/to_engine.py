"""What to ask the engine: an Ollama request into one call of vLLM's OpenAI routes.

Built key by key, so nothing a client invents gets through. Knows no I/O and no models: what is
known of the model comes in as `ModelTraits`.
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
    """What a request's meaning depends on, of the model it names."""

    full_name: str  # with host, namespace and tag, as two of Ollama's messages print it
    capabilities: frozenset[str]
    always_thinks: bool = False  # has no switch for it, if it thinks at all
    system: str = ""
    stored: dict[str, object] = {}  # options: the model's parameters over its generation_config
    history: list[Message] = []
    fim: FimTokens | None = None  # how it is asked to fill in the middle
    writes_bos: bool = False  # its template begins with the token that begins a text
    rules: TemplateRules = ACCEPTS_ALL  # what its template accepts


class EngineCall(msgspec.Struct, frozen=True, kw_only=True):
    """One POST to the engine."""

    path: str
    body: dict[str, object]

    def encode(self) -> bytes:
        return msgspec.json.encode(self.body)

    def blamed_for(self, error: EngineRefused) -> BadInput | None:
        """The fault of this request behind an error that the engine calls its own, if there is one.

        vLLM looks at a grammar twice, and knows no word for what it finds only the second time.
        """
        if error.message == INTERNAL and not _GRAMMARS.isdisjoint(self.body):
            return BadInput(NO_GRAMMAR)
        return None

    def going_on(self, tokens: list[int], asked: Generation) -> EngineCall:
        """The same of the completion route, with the prompt as token ids in place of messages."""
        fields = {key: value for key, value in self.body.items() if key not in _OF_CHAT}
        return EngineCall(path=COMPLETIONS, body=fields | {"prompt": tokens} | _logprobs(asked))


def check(request: GenerateRequest | ChatRequest, traits: ModelTraits) -> None:
    """Refuse what this model can never answer, in Ollama's order, before anything is loaded.

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

    A given `context` leaves the model's own history out; its tokens are the caller's to put back.
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
        # Nobody would tell its thoughts from its answer.
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
        # Ollama goes on with the assistant's last words; vLLM would begin a new turn.
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    return body | _thinking(request.think, traits)


def _common(
    request: Generation, traits: ModelTraits, served_name: str, context_length: int
) -> dict[str, object]:
    """What chat and completions share. Always a stream: it can be cancelled, and timed."""
    body: dict[str, object] = {
        "model": served_name,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= sampling(traits.stored, request.options, context_length)
    if response_format := _response_format(request.format):
        body["response_format"] = response_format
    if isinstance(request, GenerateRequest) and not request.raw:
        body["return_token_ids"] = True  # of which the last line's context is made
    return body


def _logprobs(request: Generation) -> dict[str, object]:
    """As the completion route has them: how many, and at least one."""
    return {"logprobs": max(request.top_logprobs, 1)} if request.logprobs else {}


def _thinking(think: bool | str | None, traits: ModelTraits) -> dict[str, object]:
    """Turn a thinking model's thinking on, unless it was asked not to; others have no switch."""
    if "thinking" not in traits.capabilities:
        return {}
    if traits.always_thinks:
        # Told not to think, a parser would take the thought for the answer. What has levels and
        # no switch is gpt-oss, which knows three.
        if not isinstance(think, str):
            return {}
        return {"reasoning_effort": "high" if think == "max" else think}
    wanted = think is not False
    # Two names for one switch: which one a template knows differs, and it ignores the other.
    fields: dict[str, object] = {
        "chat_template_kwargs": {"enable_thinking": wanted, "thinking": wanted}
    }
    if isinstance(think, str):
        fields["reasoning_effort"] = think
    return fields


def _response_format(value: object) -> dict[str, object] | None:
    """Read `format`: nothing, "json" or a JSON schema.

    Raises BadInput: with status 400 for what is wrong in a schema, 500 for what is none.
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
    """What comes after token ids goes without a template, and so without its parsers."""
    if not request.context or request.suffix:
        return
    if min(request.context) < 0:
        raise BadInput(f"context has a token id below zero: {min(request.context)}")
    if request.images:
        raise NotSupported("context does not support images; use /api/chat")
    if "thinking" in traits.capabilities and (request.think or traits.always_thinks):
        raise NotSupported("context does not support thinking; use /api/chat")


def images_of(request: GenerateRequest | ChatRequest) -> list[Image]:
    """All pictures and sounds of a request."""
    if isinstance(request, ChatRequest):
        return [image for message in request.messages for image in message.images]
    return request.images


def _check_media(request: GenerateRequest | ChatRequest, traits: ModelTraits) -> None:
    for image in images_of(request):
        sense = "audio" if image.media_type.startswith("audio/") else "vision"
        if sense not in traits.capabilities:
            kind = "audio" if sense == "audio" else "image"
            raise NotSupported(f"this model does not support {kind} input")
