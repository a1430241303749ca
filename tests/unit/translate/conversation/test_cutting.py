"""Cuts drop whole turns, keep calls with their results, and take few counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllamad.translate.conversation.cutting import (
    COUNTS,
    PICTURE,
    ChatMessage,
    Cuts,
    Search,
    cut_context,
)

LETTERS = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
TEXT_PART = {"type": "text", "text": "see"}
PICTURE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9999}}


def numbered(roles: str) -> list[ChatMessage]:
    return [{"role": LETTERS[role], "content": str(at)} for at, role in enumerate(roles)]


def called(message: ChatMessage, *ids: str) -> ChatMessage:
    return message | {"tool_calls": [{"id": id, "type": "function"} for id in ids]}


def result(id: str, content: str = "r") -> ChatMessage:
    return {"role": "tool", "content": content, "tool_call_id": id}


def places(messages: list[ChatMessage]) -> str:
    return "".join(str(message["content"]) for message in messages)


@pytest.mark.case("F1")
@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ("u", ["0"]),
        ("uau", ["012", "2"]),
        ("auau", ["0123", "123", "3"]),  # a greeting is no user's turn
        ("uuu", ["012", "12", "2"]),
        ("suau", ["0123", "03"]),
        ("usaudau", ["0123456", "13456", "146"]),  # system messages stay where they are
        ("uattauau", ["01234567", "567", "7"]),  # a call goes with its results, and its question
        ("uatatat", ["0123456", "03456", "056"]),  # one long loop of an agent
        ("uauatat", ["0123456", "23456", "256"]),
        ("uaua", ["0123", "23"]),  # the assistant's own last words are gone on with
        ("atat", ["0123", "23"]),  # not one user message
        ("tat", ["012", "12"]),
        ("sss", ["012"]),
        ("", [""]),
    ],
)
def test_the_oldest_turns_are_dropped_whole(roles: str, kept: list[str]):
    messages = numbered(roles)
    cuts = Cuts(messages)
    assert [places(cuts.kept(cut)) for cut in range(cuts.last + 1)] == kept
    assert [cuts.dropped(cut) for cut in range(cuts.last + 1)] == [
        len(messages) - len(one) for one in kept
    ]


@pytest.mark.case("F1")
def test_a_call_and_its_late_result_are_one_part():
    user: ChatMessage = {"role": "user", "content": "u"}
    answer: ChatMessage = {"role": "assistant", "content": "a"}
    messages = [user, called(answer, "x"), user, result("x"), user, answer, user]
    cuts = Cuts(messages)
    assert [len(cuts.kept(cut)) for cut in range(cuts.last + 1)] == [7, 3, 1]
    pending = [user, called(answer, "x"), user, answer, user, result("x")]
    assert Cuts(pending).last == 0, "the newest turn answers the oldest one's call"
    again = [user, called(answer, "x"), result("x"), user, called(answer, "x"), result("x"), user]
    assert Cuts(again).last == 2, "an id given twice is the newest call's"


def test_pictures_are_counted_apart_from_text():
    picture: ChatMessage = {"role": "user", "content": [TEXT_PART, PICTURE_PART] * 2}
    cuts = Cuts([picture, *numbered("au")], more=100)
    assert [cuts.pictures(cut) for cut in (0, 1)] == [2 * PICTURE, 0]
    assert 100 < cuts.size(1) < cuts.size(0) < 500


contents = st.one_of(
    st.text(max_size=300),
    st.integers(0, 300).map("x ".__mul__),
    st.just([TEXT_PART, PICTURE_PART]),
    st.none(),
)
ids = st.integers(0, 15).map(str)


@st.composite
def conversations(draw: st.DrawFn) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    for role in draw(
        st.lists(st.sampled_from("suuuaaat"), min_size=draw(st.integers(0, 15)), max_size=25)
    ):
        message: ChatMessage = {"role": LETTERS[role], "content": draw(contents)}
        if role == "a" and draw(st.booleans()):
            message = called(message, *draw(st.lists(ids, max_size=2)))
        if role == "t":
            message["tool_call_id"] = draw(st.one_of(ids, st.none()))
        messages.append(message)
    return messages


def tokens_of(messages: list[ChatMessage], density: int) -> int:
    """A tokenizer whose tokens are long in some messages and short in others."""
    count = 5
    for message in messages:
        content: Any = message["content"] or ""
        pictures = 0 if isinstance(content, str) else 1
        text = content if isinstance(content, str) else content[0]["text"]
        count += 3 + len(text) // (1 + (len(text) * density) % 7) + PICTURE * pictures
    return count


def searched(cuts: Cuts, limit: int, density: int) -> tuple[int, int]:
    """The best cut, and the number of counts."""
    search = Search(cuts, limit)
    counts = 0
    while (cut := search.next()) is not None:
        counts += 1
        search.record_count(cut, tokens_of(cuts.kept(cut), density))
    return search.best, counts


CUT: list[int] = []


@settings(max_examples=300)
@given(conversations(), st.integers(1, 110), st.integers(0, 6))
def keeps_what_belongs_together(messages: list[ChatMessage], percent: int, density: int):
    cuts = Cuts(messages)
    limit = tokens_of(messages, density) * percent // 100
    best, counts = searched(cuts, limit, density)
    kept = cuts.kept(best)
    assert counts <= COUNTS
    held = {id(message) for message in kept}
    assert kept == [message for message in messages if id(message) in held], "in their order"
    assert all(id(m) in held for m in messages if m["role"] == "system")
    assert all(id(m) in held for m in [m for m in messages if m["role"] == "user"][-1:])
    assert not messages or id(messages[-1]) in held or messages[-1]["role"] == "system"
    for call, answer in pairs(messages):
        assert (id(call) in held) == (id(answer) in held)
    assert tokens_of(kept, density) <= limit or best == cuts.last
    if 0 < best < cuts.last:
        CUT.append(best)


def pairs(messages: list[ChatMessage]) -> list[tuple[ChatMessage, ChatMessage]]:
    """Pairs of each result and the newest earlier call with its id."""
    calls: dict[object, ChatMessage] = {}
    found: list[tuple[ChatMessage, ChatMessage]] = []
    for message in messages:
        listed: Any = message.get("tool_calls", [])
        calls |= {call["id"]: message for call in listed}
        if (given := message.get("tool_call_id")) in calls and given:
            found.append((calls[given], message))
    return found


@pytest.mark.case("F1")
def test_a_cut_never_separates_a_call_from_its_result():
    CUT.clear()
    keeps_what_belongs_together()
    assert CUT, "no conversation was cut between all and nothing"


@pytest.mark.parametrize("length", [1, 50, 2000])
@pytest.mark.parametrize("limit", [300, 8000, 120_000])
def test_equal_messages_are_cut_after_few_counts(length: int, limit: int):
    words = "word " * length
    messages: list[ChatMessage] = [
        {"role": LETTERS["ua"[at % 2]], "content": words} for at in range(9_999)
    ]
    cuts = Cuts(messages)
    search = Search(cuts, limit)
    counted: list[int] = []
    while (cut := search.next()) is not None:
        tokens = 10 + sum(5 + str(message["content"]).count(" ") for message in cuts.kept(cut))
        counted.append(tokens)
        search.record_count(cut, tokens)
    assert len(counted) <= COUNTS
    assert max(counted) <= 8 * limit + 2 * (5 + length), "a whole that is far too long is not read"
    kept = 10 + (5 + length) * len(cuts.kept(search.best))
    assert kept <= limit or search.best == cuts.last
    expected = min(limit, 10 + (5 + length) * 9_999)
    assert kept >= 0.85 * expected - 2 * (5 + length)


def test_a_refused_count_leaves_the_conversation_whole():
    cuts = Cuts(numbered("uauau"))
    search = Search(cuts, 50)
    assert search.next() == 0
    search.record_count(0, None)
    assert search.next() is None
    assert search.best == 0


def test_a_refusal_after_a_fit_leaves_the_fit():
    cuts = Cuts([message | {"content": "x" * 500} for message in numbered("ua" * 20)])
    search = Search(cuts, 100)
    first = search.next()
    assert first
    search.record_count(first, 50)
    second = search.next()
    assert second is not None
    assert second < first
    search.record_count(second, None)
    assert search.next() is None
    assert search.best == first


@pytest.mark.parametrize(
    ("room", "keep", "left"),
    [
        (9, 4, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (8, 4, [0, 1, 2, 3, 5, 6, 7, 8]),
        (3, 0, [6, 7, 8]),
        (3, -1, [6, 7, 8]),
        (3, 1, [0, 7, 8]),
        (3, 5, [0, 1, 2]),
        (0, 4, []),
        (-5, 4, []),
    ],
)
def test_token_ids_are_dropped_after_the_kept_ones(room: int, keep: int, left: list[int]):
    assert cut_context([*range(9)], room, keep) == left
