"""The cuts of a conversation that is longer than the context, and the search for the best one.

A cut drops whole turns, the oldest first. A turn is a user message and everything up to the next
one; of the newest turn, which may be one long loop of tool calls, it drops the oldest groups of a
call and its results. System messages, the newest user message and the last group always stay, and a
call is never separated from its result. Messages have the form of OpenAI's chat API.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

from vllamad.translate.conversation.turns import ChatMessage
from vllamad.translate.go.json_decoder import is_list, is_object

COUNTS: Final = 4  # the most counts of one conversation by the engine
PICTURE: Final = 768  # tokens that Ollama counts for any image

_DENSE: Final = 8  # bytes a token: a conversation too long even at this rate is not counted whole
_LAST_TARGET: Final = 0.9  # of the limit: the last count aims lower, as it cannot be corrected


class Cuts:
    """All cuts of one conversation: cut 0 drops nothing, cut `last` drops all that may go."""

    def __init__(self, messages: list[ChatMessage], more: int = 0) -> None:
        """Split `messages` into parts; `more` is the size of the rest of the prompt in bytes."""
        self._messages = messages
        parts, pinned = _parts(messages)
        self._droppable = [part for at, part in enumerate(parts) if at not in pinned]
        self.last = len(self._droppable)
        measured = [_text_size(message) for message in messages]
        self._sizes = _remaining(self._droppable, [size for size, _ in measured], more)
        self._pictures = _remaining(self._droppable, [pictures for _, pictures in measured])

    def kept(self, cut: int) -> list[ChatMessage]:
        """The messages that remain after a cut, in order."""
        if not cut:
            return self._messages
        gone = {at for part in self._droppable[:cut] for at in part}
        return [message for at, message in enumerate(self._messages) if at not in gone]

    def dropped(self, cut: int) -> int:
        """The number of messages that a cut drops."""
        return sum(map(len, self._droppable[:cut]))

    def size(self, cut: int) -> int:
        """Bytes of text that remain after a cut, always above 0."""
        return self._sizes[cut]

    def pictures(self, cut: int) -> int:
        """Tokens that the images and audio remaining after a cut count for."""
        return PICTURE * self._pictures[cut]


class Search:
    """Finds the smallest cut of at most `limit` tokens, with at most COUNTS counts.

    The first cut is estimated by its bytes; each count corrects the bytes of a token.
    """

    def __init__(self, cuts: Cuts, limit: int) -> None:
        self._cuts = cuts
        self._limit = limit
        self._left = COUNTS
        self._refused = False
        self._too_long: tuple[int, int] | None = None  # the largest such cut, and its tokens
        self._fits: tuple[int, int] | None = None  # the smallest such cut, and its tokens

    def next(self) -> int | None:
        """The cut to count next; None when `best` is the answer."""
        if not self._left or self._refused:
            return None
        low = self._too_long[0] + 1 if self._too_long else 0
        high = self._fits[0] if self._fits else self._cuts.last + 1
        if low >= high:
            return None
        spare = self._left == 1 and self._fits is None
        target = self._limit * _LAST_TARGET if spare else self._limit
        guess = bisect_left(range(high), True, lo=low, key=lambda cut: self._guess(cut) <= target)
        if guess < high:
            return guess
        return None if self._fits else self._cuts.last

    def record_count(self, cut: int, tokens: int | None) -> None:
        """Record the count of a cut; None if the engine could not count it."""
        self._left -= 1
        if tokens is None:
            self._refused = True
        elif tokens <= self._limit:
            self._fits = cut, tokens
        else:
            self._too_long = cut, tokens

    @property
    def best(self) -> int:
        """The smallest counted cut that fits, else the largest cut.

        It is 0 if a count was refused and no cut fits: a refusal tells nothing about the length, so
        the engine gets the whole conversation.
        """
        if self._fits:
            return self._fits[0]
        return 0 if self._refused else self._cuts.last

    def _guess(self, cut: int) -> float:
        """Estimate the tokens of a cut from the nearest counted one."""
        size, pictures = self._cuts.size(cut), self._cuts.pictures(cut)
        known = self._fits or self._too_long
        if known is None:
            return size / _DENSE + pictures
        base, text = self._text_tokens(known)
        if self._fits and self._too_long:
            longer, more = self._text_tokens(self._too_long)
            return text + (more - text) * (size - base) / max(longer - base, 1) + pictures
        return text * size / base + pictures

    def _text_tokens(self, known: tuple[int, int]) -> tuple[int, int]:
        """Bytes and tokens of the text in a counted cut."""
        cut, tokens = known
        return self._cuts.size(cut), tokens - self._cuts.pictures(cut)


def cut_context(ids: list[int], room: int, keep: int) -> list[int]:
    """Cut token ids to `room`, as Ollama does: drop the oldest after the first `keep`."""
    if len(ids) <= room:
        return ids
    begin = min(max(keep, 0), max(room, 0))
    return ids[:begin] + ids[len(ids) - max(room - begin, 0) :]


def without_pictures(message: ChatMessage) -> tuple[ChatMessage, int]:
    """The message with its text only, and the number of images and audio parts removed."""
    parts = message.get("content")
    if not is_list(parts):
        return message, 0
    texts = [
        str(part.get("text")) for part in parts if is_object(part) and part.get("type") == "text"
    ]
    return message | {"content": "\n".join(texts)}, len(parts) - len(texts)


def _text_size(message: ChatMessage) -> tuple[int, int]:
    """The size of a message in bytes without images, and the number of its images."""
    text, pictures = without_pictures(message)
    return len(msgspec.json.encode(text)), pictures


def _remaining(droppable: list[list[int]], values: list[int], more: int = 0) -> list[int]:
    """The sum of `values` that remains after each cut."""
    gone = (sum(values[at] for at in part) for part in droppable)
    whole = sum(values) + more
    return [whole - lost for lost in accumulate(gone, initial=0)]


def _parts(messages: Sequence[ChatMessage]) -> tuple[list[list[int]], set[int]]:
    """The indexes of all but system messages in parts, oldest first, and the parts that stay."""
    roles = [message.get("role") for message in messages]
    newest = max((at for at, role in enumerate(roles) if role == "user"), default=-1)
    parts: list[list[int]] = []
    newest_part = -1
    for at, role in enumerate(roles):
        if role in ("system", "developer"):
            continue
        begins = role == "user" if at <= newest else role == "assistant"
        if begins or not parts:
            parts.append([])
        parts[-1].append(at)
        if at == newest:
            newest_part = len(parts) - 1
    return _paired(messages, parts, {newest_part, len(parts) - 1})


def _paired(
    messages: Sequence[ChatMessage], parts: list[list[int]], pinned: set[int]
) -> tuple[list[list[int]], set[int]]:
    """Join the parts from that of a call to that of its result where they differ."""
    calls: dict[str, int] = {}  # by id: the part of the newest call
    bridges = [0] * (len(parts) + 1)  # above 0 where a part is joined with the previous one
    for number, part in enumerate(parts):
        for at in part:
            calls |= dict.fromkeys(_call_ids(messages[at]), number)
            begin = calls.get(str(messages[at].get("tool_call_id")), number)
            bridges[begin + 1] += 1
            bridges[number + 1] -= 1
    joined: list[list[int]] = []
    stay: set[int] = set()
    for number, (part, bridged) in enumerate(zip(parts, accumulate(bridges), strict=False)):
        if not bridged:
            joined.append([])
        joined[-1] += part
        if number in pinned:
            stay.add(len(joined) - 1)
    return joined, stay


def _call_ids(message: ChatMessage) -> list[str]:
    calls = message.get("tool_calls")
    ids = [call.get("id") for call in calls if is_object(call)] if is_list(calls) else []
    return [str(id) for id in ids if id]
