"""The conversation of a relayed request, conformed to what the model's template accepts.

Each API has its own form of a conversation. It is read into messages of OpenAI's chat API, which
`conform` rewrites, and written back. A conversation that the template accepts stays as it is.
"""

from __future__ import annotations

import msgspec

from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules, conform
from vllamad.translate.conversation.turns import ChatMessage, calls_of, role_of, text_of
from vllamad.translate.go.json_decoder import is_list, is_object

RequestBody = dict[str, object]

_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
# Where the client's own item is kept beside what it was read into.
_ITEM = "item"


def conform_request(path: str, body: RequestBody, rules: TemplateRules) -> RequestBody:
    """The request `body` for `path` with a conversation that a template with `rules` accepts."""
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
    given = _objects(body.get("messages"))
    return body | {"messages": conform(given, rules)} if given else body


# Anthropic: results and calls are blocks of a user's and of an assistant's message.


def _anthropic(body: RequestBody, rules: TemplateRules) -> RequestBody:
    given: list[ChatMessage] = []
    if system := body.get("system"):
        given.append({"role": "system", "content": system})
    for message in _objects(body.get("messages")):
        given += _from_anthropic(message)
    written = conform(given, rules)
    if written == given:
        return body
    rest = {name: value for name, value in body.items() if name != "system"}
    if written and role_of(written[0]) == "system":
        rest["system"] = written.pop(0)["content"]
    return rest | {"messages": _to_anthropic(written)}


def _from_anthropic(message: ChatMessage) -> list[ChatMessage]:
    content = message.get("content")
    if not is_list(content):
        return [message]
    blocks = _objects(content)
    results: list[ChatMessage] = []
    rest: list[ChatMessage] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            words, pictures = _without_pictures(block.get("content", ""))
            result: ChatMessage = {"role": "tool", "tool_call_id": block.get("tool_use_id")}
            results.append(result | {"content": words, _ITEM: block})
            rest += pictures
    rest += [block for block in blocks if block.get("type") not in ("tool_result", "tool_use")]
    calls: list[ChatMessage] = [
        {"id": block.get("id"), "type": "function", "function": _function(block)}
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    said: ChatMessage = {"role": message.get("role"), "content": rest}
    if calls:
        said["tool_calls"] = calls
    return [*results, said] if rest or calls or not results else results


def _without_pictures(content: object) -> tuple[object, list[ChatMessage]]:
    """A result's content and its pictures, which the engine puts into a user's turn behind it."""
    pictures = [block for block in _objects(content) if block.get("type") == "image"]
    if not pictures:
        return content, []
    return [block for block in _objects(content) if block.get("type") != "image"], pictures


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
            said = content if is_list(content) else _texts("text", content)
            uses = [_tool_use(call) for call in calls]
            written.append({"role": "assistant", "content": [*said, *uses]})
        else:
            written.append({"role": message.get("role"), "content": content})
    return written


def _tool_use(call: ChatMessage) -> ChatMessage:
    function = call.get("function")
    fields = function if is_object(function) else {}
    given = msgspec.json.decode(str(fields.get("arguments")))
    return {"type": "tool_use", "id": call["id"], "name": fields.get("name"), "input": given}


def _texts(kind: str, content: object) -> list[ChatMessage]:
    return [{"type": kind, "text": content}] if content else []


# Responses: calls, results and thoughts are items beside the messages.


def _responses(body: RequestBody, rules: TemplateRules) -> RequestBody:
    if rules.alternates:
        # The engine joins an assistant's words to an unanswered call before them: one turn less.
        rules = msgspec.structs.replace(rules, paired=True)
    asked = body.get("input")
    items = _objects(asked) if is_list(asked) else [{"role": "user", "content": asked}]
    given = _read_items(body.get("instructions"), items)
    written = conform(given, rules)
    if written == given:
        return body
    # Once more: the engine also joins items that only stand side by side now.
    written = conform(_read_items(None, _items_of(written)), rules)
    rest = {name: value for name, value in body.items() if name != "instructions"}
    if written and role_of(written[0]) == "system":
        rest["instructions"] = _in_words(written.pop(0)["content"])
    return rest | {"input": _items_of(written)}


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
    """Add an item to the messages; the engine joins an assistant's thoughts, words and calls."""
    kind = item.get("type", "message")
    last = messages[-1] if messages else {}
    speaks = last if role_of(last) == "assistant" else None
    if kind in _RESULTS:
        id, output = item.get("call_id"), item.get("output", "")
        messages.append({"role": "tool", "tool_call_id": id, "content": output, _ITEM: item})
    elif kind in _CALLS:
        arguments = item.get("arguments", item.get("input"))
        function = {"name": item.get("name"), "arguments": str(arguments)}
        call = {"id": item.get("call_id"), "function": function, _ITEM: item}
        if speaks is None:
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        else:
            speaks["tool_calls"] = [*calls_of(speaks), call]
    elif kind == "reasoning":
        thought = _in_words(item.get("content") or item.get("summary"))
        if speaks and not speaks.get("reasoning"):
            speaks["reasoning"] = thought
        else:
            messages.append({"role": "assistant", "content": "", "reasoning": thought})
    elif item.get("role") == "assistant" and speaks and not speaks.get("content"):
        speaks["content"] = item.get("content")
    else:
        messages.append({"role": item.get("role"), "content": item.get("content")})


def _items(message: ChatMessage) -> list[ChatMessage]:
    role, content = role_of(message), message.get("content")
    if role == "tool":
        return [_kept(message) | {"call_id": message.get("tool_call_id"), "output": content}]
    items: list[ChatMessage] = []
    if thought := message.get("reasoning"):
        said = [{"type": "reasoning_text", "text": thought}]
        items.append({"type": "reasoning", "id": "rs_0", "summary": [], "content": said})
    if role == "assistant":
        text = _in_words(content)
        no_marks: list[object] = []
        said = [{"type": "output_text", "text": text, "annotations": no_marks}]
        if text or not (items or calls_of(message)):
            items.append({"type": "message", "role": role, "content": said})
    else:
        items.append({"type": "message", "role": role, "content": _input_parts(content)})
    return items + [_kept(call) | {"call_id": call["id"]} for call in calls_of(message)]


def _kept(message: ChatMessage) -> ChatMessage:
    """The client's item of a call or a result, or one for a result that it did not send."""
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


def _in_words(content: object) -> str:
    if not is_list(content):
        return str(content or "")
    return "\n\n".join(filter(None, map(text_of, content)))
