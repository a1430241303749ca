"""Rewrites tool calls and their results to the form that a template accepts.

An exchange is an assistant's message with calls and the results that follow it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from vllamad.translate.conversation.template_rules import CallIds, TemplateRules
from vllamad.translate.conversation.turns import (
    FILLER,
    ChatMessage,
    calls_of,
    has_content,
    join_contents,
    make_message,
    role_of,
)
from vllamad.translate.go.json_decoder import is_object

_ALNUM9: Final = re.compile(r"[A-Za-z0-9]{9}")


def rewrite_exchanges(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Rewrite every exchange of a conversation to the form that `rules` accept.

    Results get the order of their calls, and the id of the call they answer.
    """
    written: list[ChatMessage] = []
    counted = at = 0
    while at < len(messages):
        message, calls = messages[at], calls_of(messages[at])
        at += 1
        if role_of(message) == "tool":
            written.append(_orphan(message, rules))
        elif not calls:
            written.append(message)
        else:
            first = at
            while at < len(messages) and role_of(messages[at]) == "tool":
                at += 1
            exchange = _Exchange(message, calls, messages[first:at], counted)
            counted += len(calls)
            written += exchange.as_text() if not rules.tools else exchange.as_calls(rules)
    return written


class _Exchange:
    """One message with calls and their results; `counted` calls precede it."""

    def __init__(
        self,
        message: ChatMessage,
        calls: list[ChatMessage],
        results: list[ChatMessage],
        counted: int,
    ) -> None:
        self._message = message
        self._counted = counted
        self._calls = [call | {"id": id} for call, id in zip(calls, _ids(calls), strict=True)]
        self._results: list[list[ChatMessage]] = [[] for _ in calls]
        self._orphans: list[ChatMessage] = []
        for result in results:
            self._match(result)

    def as_text(self) -> list[ChatMessage]:
        """The exchange as text, for a template that renders no calls."""
        rest = {key: value for key, value in self._message.items() if key != "tool_calls"}
        text = join_contents([self._message.get("content"), *map(_call_as_text, self._calls)])
        results = [result for results in self._results for result in results]
        return [rest | {"content": text}, *map(_result_as_text, [*results, *self._orphans])]

    def as_calls(self, rules: TemplateRules) -> list[ChatMessage]:
        head = self._message
        written: list[ChatMessage] = []
        if not rules.call_text and has_content(head):
            # A user turn separates the two: the engine joins adjacent assistant messages.
            text_only = {key: value for key, value in head.items() if key != "tool_calls"}
            written += [text_only, make_message("user")]
            head = make_message("assistant", "")
        answers = [self._answers(at, rules) for at in range(len(self._calls))]
        calls: list[object] = [
            call | {"id": _template_id(call, rules.call_ids, self._counted + at)}
            for at, call in enumerate(self._calls)
        ]
        if rules.one_call:
            for at, (call, results) in enumerate(zip(calls, answers, strict=True)):
                start = make_message("assistant", "") if at else head
                single: ChatMessage = {**start, "tool_calls": [call]}
                written += [single, *results]
        else:
            every: ChatMessage = {**head, "tool_calls": calls}
            written.append(every)
            written += [result for results in answers for result in results]
        return written + [_orphan(result, rules) for result in self._orphans]

    def _match(self, result: ChatMessage) -> None:
        id, name = result.get("tool_call_id"), result.get("name")
        open_calls = [at for at, results in enumerate(self._results) if not results]
        named = [at for at, call in enumerate(self._calls) if id and call["id"] == id]
        if not id:
            named = [at for at in open_calls if name and _function(self._calls[at])[0] == name]
            named += open_calls
        if named:
            self._results[named[0]].append(result)
        else:
            self._orphans.append(result)

    def _answers(self, at: int, rules: TemplateRules) -> list[ChatMessage]:
        """The results of call number `at`, with the rewritten id of the call."""
        id = _template_id(self._calls[at], rules.call_ids, self._counted + at)
        results = self._results[at]
        if rules.paired and len(results) > 1:
            results = [
                results[0]
                | {"content": join_contents([result.get("content") for result in results])}
            ]
        if not results and (rules.paired or rules.one_call):
            results = [make_message("tool")]
        return [result | {"tool_call_id": id} for result in results]


def _ids(calls: list[ChatMessage]) -> list[str]:
    """The ids of calls: those of the client, made unique, with missing ones filled in."""
    ids: list[str] = []
    for at, call in enumerate(calls):
        id = str(call.get("id") or "")
        ids.append(id if id and id not in ids else f"{id or 'call'}_{at}")
    return ids


def _template_id(call: ChatMessage, form: CallIds, number: int) -> str:
    """The id of a call in the form of its model family; one id always gives the same result."""
    id = str(call["id"])
    if form == "kimi":
        return f"functions.{_function(call)[0]}:{number}"
    return _alnum9(id) if form == "alnum9" else id


def _alnum9(id: str) -> str:
    return id if _ALNUM9.fullmatch(id) else hashlib.sha256(id.encode()).hexdigest()[:9]


def _orphan(result: ChatMessage, rules: TemplateRules) -> ChatMessage:
    """A result without its call, in the form that the rules accept."""
    if rules.paired or not rules.tools:
        return _result_as_text(result)
    if rules.call_ids == "alnum9":
        return result | {"tool_call_id": _alnum9(str(result.get("tool_call_id")))}
    return result


def _function(call: ChatMessage) -> tuple[str, str]:
    """The name and the arguments of a call, as texts."""
    function = call.get("function")
    fields = function if is_object(function) else {}
    value = fields.get("arguments")
    arguments = value if isinstance(value, str) else msgspec.json.encode(value or {}).decode()
    return str(fields.get("name") or ""), arguments


def _call_as_text(call: ChatMessage) -> str:
    name, arguments = _function(call)
    return f"Tool call: {name} {arguments}"


def _result_as_text(result: ChatMessage) -> ChatMessage:
    content = result.get("content")
    if content is None or isinstance(content, str):
        return make_message("user", f"Tool result: {content or FILLER}")
    return make_message("user", join_contents(["Tool result:", content]))
