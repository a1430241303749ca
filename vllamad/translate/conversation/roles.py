"""A valid conversation in the form that a chat template accepts, with nothing lost.

Templates refuse what clients send: a second system message, two user turns in a row, an assistant's
greeting first. `TemplateRules` say what one template accepts, `conform` rewrites a conversation to
that. Knows no template and no request; messages have the form of OpenAI's chat API.
"""

from __future__ import annotations

from vllamad.translate.conversation.template_rules import ACCEPTS_ALL, TemplateRules
from vllamad.translate.conversation.tool_exchanges import rewrite_exchanges
from vllamad.translate.conversation.turns import (
    ChatMessage,
    calls_of,
    has_words,
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
    """Rewrite a conversation to what `rules` accept; conforming it again changes nothing.

    Where a turn must be that no one took, its words are FILLER. `continues` says that the model
    goes on with the last message, which is the assistant's and stays the last.
    """
    if rules == ACCEPTS_ALL or not messages:
        return messages
    said = messages if rules.developer else [_as_system(message) for message in messages]
    said = said if rules.parts else [with_single_text(message) for message in said]
    said = rewrite_exchanges(said, rules)
    said = _with_system(said, rules)
    said = _with_user(said, rules)
    said = _in_turns(said, rules)
    if rules.ends_with_user and not continues and role_of(said[-1]) == "assistant":
        said.append(make_message("user"))
    return said if rules.blank else [_with_words(message) for message in said]


def _as_system(message: ChatMessage) -> ChatMessage:
    return message | {"role": "system"} if role_of(message) == "developer" else message


def _with_system(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """System messages where they are accepted: as one at the front, or in the first user turn."""
    systems = [message for message in messages if role_of(message) == "system"]
    others = [message for message in messages if role_of(message) != "system"]
    if rules.system == "anywhere" or not systems:
        return messages
    said = join_contents([message.get("content") for message in systems if has_words(message)])
    if not said:
        return others or [make_message("user")]
    if rules.system == "first":
        return [systems[0] | {"content": said}, *others]
    if others and role_of(others[0]) == "user":
        first = others[0]
        return [first | {"content": join_contents([said, first.get("content")])}, *others[1:]]
    return [make_message("user", said), *others]


def _with_user(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """A user turn after the leading system messages, where one must be there and is not."""
    roles = [role_of(message) for message in messages]
    begin = next((at for at, role in enumerate(roles) if role != "system"), len(roles))
    there = "user" in (roles[begin : begin + 1] if rules.user == "first" else roles)
    if rules.user == "anywhere" or there:
        return messages
    return [*messages[:begin], make_message("user"), *messages[begin:]]


def _in_turns(messages: list[ChatMessage], rules: TemplateRules) -> list[ChatMessage]:
    """Neighbours merged and missing turns put in, where user and assistant must take turns.

    Calls and results do not count as turns, as in the templates that have both.
    """
    written: list[ChatMessage] = []
    for message in messages:
        before = written[-1] if written else {}
        if _is_told_apart(before, message, rules):
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
    """The role of the last message that is a turn: of the user, or of the assistant's words."""
    for message in reversed(messages):
        if _takes_a_turn(message) and not calls_of(message):
            return role_of(message)
    return ""


def _takes_a_turn(message: ChatMessage) -> bool:
    return role_of(message) in ("user", "assistant")


def _is_told_apart(before: ChatMessage, message: ChatMessage, rules: TemplateRules) -> bool:
    """Whether words and the calls after them are two messages that must not become one."""
    return (
        not rules.call_text
        and role_of(before) == role_of(message) == "assistant"
        and bool(calls_of(message))
        and not calls_of(before)
    )


def _with_words(message: ChatMessage) -> ChatMessage:
    if not _takes_a_turn(message) or calls_of(message) or has_words(message):
        return message
    return message | {
        "content": join_contents([message.get("content"), make_message("user")["content"]])
    }
