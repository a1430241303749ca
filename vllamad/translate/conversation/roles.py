"""Rewrites a valid conversation to the form that a chat template accepts, without loss.

Templates refuse conversations that clients send: with a second system message, two user turns in a
row, or an assistant's greeting first. `TemplateRules` describe one template; `conform` rewrites a
conversation to them. Knows no template and no request; messages have the form of OpenAI's chat API.
"""

from __future__ import annotations

from vllamad.translate.conversation.template_rules import ACCEPTS_ALL, TemplateRules
from vllamad.translate.conversation.tool_exchanges import rewrite_exchanges
from vllamad.translate.conversation.turns import (
    ChatMessage,
    calls_of,
    has_content,
    join_contents,
    make_message,
    merge_messages,
    role_of,
    with_single_text,
)

__all__ = ["ACCEPTS_ALL", "TemplateRules", "conform"]


def conform(
    messages: list[ChatMessage], rules: TemplateRules, *, continues: bool = False
) -> list[ChatMessage]:
    """Rewrite a conversation to the form that `rules` accept; a second call changes nothing.

    A missing turn gets FILLER as its text. `continues` says that the model continues the last
    message, which is the assistant's and stays the last.
    """
    if rules == ACCEPTS_ALL or not messages:
        return messages
    conformed = messages if rules.developer else [_as_system(message) for message in messages]
    conformed = conformed if rules.parts else [with_single_text(message) for message in conformed]
    conformed = rewrite_exchanges(conformed, rules)
    conformed = _with_system(conformed, rules)
    conformed = _with_user(conformed, rules)
    conformed = _in_turns(conformed, rules)
    if rules.ends_with_user and not continues and role_of(conformed[-1]) == "assistant":
        conformed.append(make_message("user"))
    return conformed if rules.blank else [_with_text(message) for message in conformed]


def _as_system(message: ChatMessage) -> ChatMessage:
    return message | {"role": "system"} if role_of(message) == "developer" else message


def _with_system(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Move system messages to where they are accepted: first as one, or into a user turn."""
    systems = [message for message in messages if role_of(message) == "system"]
    others = [message for message in messages if role_of(message) != "system"]
    if rules.system == "anywhere" or not systems:
        return messages
    system_text = join_contents(
        [message.get("content") for message in systems if has_content(message)]
    )
    if not system_text:
        return others or [make_message("user")]
    if rules.system == "first":
        return [systems[0] | {"content": system_text}, *others]
    if others and role_of(others[0]) == "user":
        first = others[0]
        return [
            first | {"content": join_contents([system_text, first.get("content")])},
            *others[1:],
        ]
    return [make_message("user", system_text), *others]


def _with_user(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Insert a user turn after the leading system messages if the rules require one there."""
    roles = [role_of(message) for message in messages]
    begin = next((at for at, role in enumerate(roles) if role != "system"), len(roles))
    present = "user" in (roles[begin : begin + 1] if rules.user == "first" else roles)
    if rules.user == "anywhere" or present:
        return messages
    return [*messages[:begin], make_message("user"), *messages[begin:]]


def _in_turns(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Merge adjacent turns and insert missing ones where user and assistant must alternate.

    Calls and results do not count as turns, as in the templates that render both.
    """
    written: list[ChatMessage] = []
    for message in messages:
        before = written[-1] if written else {}
        if _must_stay_apart(before, message, rules):
            written.append(make_message("user"))
        elif rules.alternates and role_of(message) == _speaker([message]) == _speaker(written):
            if role_of(before) == role_of(message):
                message = merge_messages(written.pop(), message)
            else:
                written.append(
                    make_message("user" if role_of(message) == "assistant" else "assistant")
                )
        written.append(message)
    return written


def _speaker(messages: list[ChatMessage]) -> str:
    """The role of the last turn: a user message, or an assistant message without calls."""
    for message in reversed(messages):
        if _is_turn(message) and not calls_of(message):
            return role_of(message)
    return ""


def _is_turn(message: ChatMessage) -> bool:
    return role_of(message) in ("user", "assistant")


def _must_stay_apart(before: ChatMessage, message: ChatMessage, rules: TemplateRules) -> bool:
    """True if an assistant's text and its calls must stay two messages."""
    return (
        not rules.call_text
        and role_of(before) == role_of(message) == "assistant"
        and bool(calls_of(message))
        and not calls_of(before)
    )


def _with_text(message: ChatMessage) -> ChatMessage:
    if not _is_turn(message) or calls_of(message) or has_content(message):
        return message
    return message | {
        "content": join_contents([message.get("content"), make_message("user")["content"]])
    }
