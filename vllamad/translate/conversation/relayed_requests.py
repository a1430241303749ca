"""Rewrites the conversation of a relayed request to the form that the model's template accepts.

The conversation of each API is read into messages of OpenAI's chat API, rewritten by `conform`, and
written back. A conversation that the template accepts is left unchanged.
"""

from __future__ import annotations

import msgspec

from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules, conform
from vllamad.translate.conversation.turns import ChatMessage, calls_of, role_of, text_of
from vllamad.translate.go.json_decoder import is_list, is_object

RequestBody = dict[str, object]

_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
# The key under which a message keeps the client's item that it was read from.
_ITEM = "item"


def conform_request(path: str, body: RequestBody, rules: TemplateRules) -> RequestBody:
    """Rewrite the conversation of `body`, a request for `path`, to the form `rules` accept."""
    if rules == ACCEPTS_ALL:
        return body
    match path:
        case "/v1/chat/completions":
            return _chat(body, rules)
        case "/v1/messages" | "/v1/messages/count_tokens":
            return _anthropic(body, rules)
        case "/v1/responses":
            return _responses(body, rules)
        case _:
            return body


def _objects(value: object) -> list[ChatMessage]:
    return [item for item in value if is_object(item)] if is_list(value) else []


def _chat(body: RequestBody, rules: TemplateRules) -> RequestBody:
    messages = _objects(body.get("messages"))
    return body | {"messages": conform(messages, rules)} if messages else body


# Anthropic: results and calls are blocks of a user's and of an assistant's message.


def _anthropic(body: RequestBody, rules: TemplateRules) -> RequestBody:
    messages: list[ChatMessage] = []
    if system := body.get("system"):
        messages.append({"role": "system", "content": system})
    for message in _objects(body.get("messages")):
        messages += _from_anthropic(message)
    conformed = conform(messages, rules)
    if conformed == messages:
        return body
    rest = {name: value for name, value in body.items() if name != "system"}
    if conformed and role_of(conformed[0]) == "system":
        rest["system"] = conformed.pop(0)["content"]
    return rest | {"messages": _to_anthropic(conformed)}


def _from_anthropic(message: ChatMessage) -> list[ChatMessage]:
    content = message.get("content")
    if not is_list(content):
        return [message]
    blocks = _objects(content)
    results: list[ChatMessage] = []
    rest: list[ChatMessage] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            text, images = _split_images(block.get("content", ""))
            result: ChatMessage = {"role": "tool", "tool_call_id": block.get("tool_use_id")}
            results.append(result | {"content": text, _ITEM: block})
            rest += images
    rest += [block for block in blocks if block.get("type") not in ("tool_result", "tool_use")]
    calls: list[ChatMessage] = [
        {"id": block.get("id"), "type": "function", "function": _function(block)}
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    remaining: ChatMessage = {"role": message.get("role"), "content": rest}
    if calls:
        remaining["tool_calls"] = calls
    return [*results, remaining] if rest or calls or not results else results


def _split_images(content: object) -> tuple[object, list[ChatMessage]]:
    """Split the images off a result's content: the engine puts them into a user turn after it."""
    images = [block for block in _objects(content) if block.get("type") == "image"]
    if not images:
        return content, []
    return [block for block in _objects(content) if block.get("type") != "image"], images


def _function(block: ChatMessage) -> ChatMessage:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    return {"name": block.get("name"), "arguments": arguments}


def _to_anthropic(messages: list[ChatMessage]) -> list[ChatMessage]:
    written: list[ChatMessage] = []
    for message in messages:
        content = message.get("content")
        if role_of(message) == "tool":
            item = message.get(_ITEM)
            block: ChatMessage = {"type": "tool_result"} | (item if is_object(item) else {})
            block |= {"tool_use_id": message.get("tool_call_id"), "content": content}
            written.append({"role": "user", "content": [block]})
        elif calls := calls_of(message):
            blocks = content if is_list(content) else _texts("text", content)
            uses = [_tool_use(call) for call in calls]
            written.append({"role": "assistant", "content": [*blocks, *uses]})
        else:
            written.append({"role": message.get("role"), "content": content})
    return written


def _tool_use(call: ChatMessage) -> ChatMessage:
    function = call.get("function")
    fields = function if is_object(function) else {}
    arguments = msgspec.json.decode(str(fields.get("arguments")))
    return {"type": "tool_use", "id": call["id"], "name": fields.get("name"), "input": arguments}


def _texts(kind: str, content: object) -> list[ChatMessage]:
    return [{"type": kind, "text": content}] if content else []


# Responses: calls, results and reasoning are items beside the messages.


def _responses(body: RequestBody, rules: TemplateRules) -> RequestBody:
    if rules.alternates:
        # The engine joins an assistant's text to an unanswered call before it: one turn less.
        rules = msgspec.structs.replace(rules, paired=True)
    value = body.get("input")
    items = _objects(value) if is_list(value) else [{"role": "user", "content": value}]
    messages = _read_items(body.get("instructions"), items)
    conformed = conform(messages, rules)
    if conformed == messages:
        return body
    # Again: the engine also joins items that have become adjacent.
    conformed = conform(_read_items(None, _items_of(conformed)), rules)
    rest = {name: value for name, value in body.items() if name != "instructions"}
    if conformed and role_of(conformed[0]) == "system":
        rest["instructions"] = _joined_text(conformed.pop(0)["content"])
    return rest | {"input": _items_of(conformed)}


def _items_of(messages: list[ChatMessage]) -> list[ChatMessage]:
    return [item for message in messages for item in _items(message)]


def _read_items(instructions: object, items: list[ChatMessage]) -> list[ChatMessage]:
    """The messages that the engine makes of the items of a response."""
    messages: list[ChatMessage] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for item in items:
        _read_item(item, messages)
    return messages


def _read_item(item: ChatMessage, messages: list[ChatMessage]) -> None:
    """Add an item to the messages; an assistant's reasoning, text and calls become one message."""
    kind = item.get("type", "message")
    last = messages[-1] if messages else {}
    assistant = last if role_of(last) == "assistant" else None
    if kind in _RESULTS:
        id, output = item.get("call_id"), item.get("output", "")
        messages.append({"role": "tool", "tool_call_id": id, "content": output, _ITEM: item})
    elif kind in _CALLS:
        arguments = item.get("arguments", item.get("input"))
        function = {"name": item.get("name"), "arguments": str(arguments)}
        call = {"id": item.get("call_id"), "function": function, _ITEM: item}
        if assistant is None:
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        else:
            assistant["tool_calls"] = [*calls_of(assistant), call]
    elif kind == "reasoning":
        reasoning = _joined_text(item.get("content") or item.get("summary"))
        if assistant and not assistant.get("reasoning"):
            assistant["reasoning"] = reasoning
        else:
            messages.append({"role": "assistant", "content": "", "reasoning": reasoning})
    elif item.get("role") == "assistant" and assistant and not assistant.get("content"):
        assistant["content"] = item.get("content")
    else:
        messages.append({"role": item.get("role"), "content": item.get("content")})


def _items(message: ChatMessage) -> list[ChatMessage]:
    role, content = role_of(message), message.get("content")
    if role == "tool":
        return [_client_item(message) | {"call_id": message.get("tool_call_id"), "output": content}]
    items: list[ChatMessage] = []
    if reasoning := message.get("reasoning"):
        parts = [{"type": "reasoning_text", "text": reasoning}]
        items.append({"type": "reasoning", "id": "rs_0", "summary": [], "content": parts})
    if role == "assistant":
        text = _joined_text(content)
        no_annotations: list[object] = []
        parts = [{"type": "output_text", "text": text, "annotations": no_annotations}]
        if text or not (items or calls_of(message)):
            items.append({"type": "message", "role": role, "content": parts})
    else:
        items.append({"type": "message", "role": role, "content": _input_parts(content)})
    return items + [_client_item(call) | {"call_id": call["id"]} for call in calls_of(message)]


def _client_item(message: ChatMessage) -> ChatMessage:
    """The client's item of a call or result; a new item for a result that it did not send."""
    item = message.get(_ITEM)
    return item if is_object(item) else {"type": "function_call_output"}


def _input_parts(content: object) -> object:
    """Content parts under the names that the parts of a request have."""
    if not is_list(content):
        return content
    return [
        part | {"type": "input_text"} if part.get("type") in ("text", "output_text") else part
        for part in _objects(content)
    ]


def _joined_text(content: object) -> str:
    if not is_list(content):
        return str(content or "")
    return "\n\n".join(filter(None, map(text_of, content)))
