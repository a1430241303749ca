"""Any valid conversation renders with any template, without loss."""

from __future__ import annotations

import re
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chat_templates import FAMILIES, RULES
from vllamad.models.checkpoint.template_rendering import Renderer
from vllamad.translate.conversation.relayed_requests import conform_request
from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules, conform
from vllamad.translate.conversation.template_rules import MISTRAL_COMMON, STRICTEST
from vllamad.translate.conversation.turns import ChatMessage, calls_of, role_of

RENDERERS = {
    name: Renderer(template, bos_token="<s>", eos_token="</s>")
    for name, template in FAMILIES.items()
}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}

every = pytest.mark.parametrize("family", FAMILIES)


def say(role: str, words: str = "", **more: object) -> ChatMessage:
    return {"role": role, "content": words or f"said by {role}"} | more


def call(id: str, name: str = "f", arguments: str = "{}") -> ChatMessage:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def rendered(family: str, messages: list[ChatMessage]) -> str:
    tools = [TOOL] if any(map(calls_of, messages)) else None
    return RENDERERS[family].render(messages, tools=tools)


REPORTED = {
    "two system messages": [say("system", "one"), say("system", "two"), say("user", "three")],
    "a system message later on": [say("user", "one"), say("system", "two"), say("user", "three")],
    "two user turns": [say("user", "one"), say("user", "two")],
    "the assistant first": [say("assistant", "one"), say("user", "two")],
    "a system message": [say("system", "one"), say("user", "two")],
    "a developer": [say("developer", "one"), say("user", "two")],
    "only a system message": [say("system", "one")],
}


@pytest.mark.case("F2", "F3")
@every
@pytest.mark.parametrize("conversation", REPORTED)
def test_a_refused_conversation_renders_once_conformed(family: str, conversation: str) -> None:
    messages = REPORTED[conversation]
    prompt = rendered(family, conform(messages, RULES[family]))
    assert messages
    for message in messages:
        assert str(message["content"]) in prompt


def test_strict_templates_refuse_the_unchanged_conversations() -> None:
    refusing: set[str] = set()
    for family in FAMILIES:
        for messages in REPORTED.values():
            try:
                rendered(family, messages)
            except Exception:  # noqa: BLE001 - a template can raise anything
                refusing.add(family)
    assert len(refusing) >= 9, "templates that never refuse show nothing"


_numbers = st.integers(0, 10**6)


@st.composite
def conversations(draw: st.DrawFn) -> list[ChatMessage]:
    """Valid conversations: any order of roles, calls with results, unique words."""
    messages: list[ChatMessage] = []
    count = 0

    def words() -> str:
        nonlocal count
        count += 1
        return f"word{count}x{draw(_numbers)}y"

    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["system", "developer", "user", "assistant", "calls", "blank"]))
        if kind == "calls":
            ids = [f"call_{words()}" for _ in range(draw(st.integers(1, 3)))]
            calls = [call(id, "f", f'{{"a":"{words()}"}}') for id in ids]
            text = words() if draw(st.booleans()) else ""
            messages.append({"role": "assistant", "content": text, "tool_calls": calls})
            named_ids = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
            messages += [say("tool", words(), tool_call_id=id) for id in named_ids]
        elif kind == "blank":
            messages.append({"role": draw(st.sampled_from(["user", "assistant"])), "content": ""})
        else:
            messages.append({"role": kind, "content": words()})
    return messages


def nonces(messages: list[ChatMessage]) -> set[str]:
    """The texts of a conversation with the arguments of its calls, but without ids."""
    texts = [str(message["content"]) for message in messages]
    texts += [str(item["function"]) for message in messages for item in calls_of(message)]
    return {word for text in texts for word in re.findall(r"word\d+x\d+y", text)}


@every
@given(messages=conversations())
def test_no_valid_conversation_is_refused_and_nothing_is_lost(
    family: str, messages: list[ChatMessage]
) -> None:
    rules = RULES[family]
    written = conform(messages, rules)
    prompt = rendered(family, written)
    assert {word for word in nonces(messages) if word not in prompt} == set()
    assert conform(written, rules) == written, "conforming again changes nothing"


@given(messages=conversations(), rules=st.sampled_from([STRICTEST, MISTRAL_COMMON, ACCEPTS_ALL]))
def test_nothing_is_lost_by_the_strictest_rules(
    messages: list[ChatMessage], rules: TemplateRules
) -> None:
    written = conform(messages, rules)
    assert nonces(written) == nonces(messages)
    assert conform(written, rules) == written


def test_a_template_without_rules_gets_the_conversation_unchanged() -> None:
    conversation = REPORTED["a system message later on"]
    assert conform(conversation, ACCEPTS_ALL) is conversation
    assert conform([], STRICTEST) == []


def test_a_call_and_its_result_have_the_same_id() -> None:
    long = "call_that_is_longer_than_nine"
    messages = [
        say("user"),
        say("assistant", " ", tool_calls=[call(long), call("Abc123xyz")]),
        say("tool", "second", tool_call_id="Abc123xyz"),
        say("tool", "first", tool_call_id=long),
        say("user"),
    ]
    written = conform(messages, TemplateRules(call_ids="alnum9"))
    calls = [item["id"] for item in calls_of(written[1])]
    assert [message["tool_call_id"] for message in written[2:4]] == calls
    assert [message["content"] for message in written[2:4]] == ["first", "second"]
    assert calls[1] == "Abc123xyz"
    assert re.fullmatch("[0-9a-f]{9}", str(calls[0]))
    assert written == conform(messages, TemplateRules(call_ids="alnum9"))


def test_kimis_ids_count_over_the_conversation() -> None:
    messages = [
        say("user"),
        say("assistant", " ", tool_calls=[call("a", "go"), call("a", "stop")]),
        say("tool", "x", tool_call_id="a"),
        say("assistant", " ", tool_calls=[call("b", "go")]),
        say("tool", "y", name="go"),
    ]
    written = conform(messages, TemplateRules(call_ids="kimi"))
    ids = [item["id"] for message in written for item in calls_of(message)]
    assert ids == ["functions.go:0", "functions.stop:1", "functions.go:2"]
    assert written[2]["tool_call_id"] == "functions.go:0"
    assert written[4]["tool_call_id"] == "functions.go:2"


def test_a_continued_assistant_message_stays_the_last() -> None:
    messages = [say("user"), say("assistant", "It is")]
    rules = TemplateRules(ends_with_user=True)
    assert conform(messages, rules, continues=True) == messages
    assert [role_of(message) for message in conform(messages, rules)][-1] == "user"


def test_images_keep_their_place_after_inserted_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    messages = [say("system", "one"), say("user") | {"content": [picture]}]
    [written] = conform(messages, TemplateRules(system="none"))
    assert written["content"] == [{"type": "text", "text": "one"}, picture]


ANTHROPIC: dict[str, object] = {
    "system": "be brief",
    "messages": [
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "look"}]},
        {"role": "system", "content": "and kind"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "so"},
                {"type": "tool_use", "id": "toolu_0123456789", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_0123456789", "content": "42",
                 "is_error": False},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "user", "content": "please"},
    ],
}  # fmt: skip


def test_a_conversation_of_messages_conforms() -> None:
    rules = MISTRAL_COMMON
    body = conform_request("/v1/messages", ANTHROPIC, rules)
    assert body["system"] == "be brief\n\nand kind"
    messages = cast("list[ChatMessage]", body["messages"])
    roles = [(message["role"], kinds(message)) for message in messages]
    assert roles == [
        ("user", "text"),
        ("assistant", "text"),
        ("user", "text"),
        ("assistant", "text"),
        ("user", "text"),
        ("assistant", "tool_use"),
        ("user", "tool_result"),
        ("assistant", "text"),
        ("user", "text"),
    ]
    [use] = blocks(messages, "tool_use")
    [result] = blocks(messages, "tool_result")
    assert use["input"] == {"a": 1}
    assert use["id"] == result["tool_use_id"]
    assert re.fullmatch("[0-9a-f]{9}", str(use["id"]))
    assert result["is_error"] is False


def kinds(message: ChatMessage) -> str:
    content = message["content"]
    return (
        "text"
        if isinstance(content, str)
        else " ".join(str(block["type"]) for block in cast("list[ChatMessage]", content))
    )


def blocks(messages: list[ChatMessage], kind: str) -> list[ChatMessage]:
    contents = [
        cast("list[ChatMessage]", item["content"]) for item in messages if kinds(item) != "x"
    ]
    return [
        block
        for content in contents
        if not isinstance(content, str)
        for block in content
        if block["type"] == kind
    ]


def test_the_anthropic_system_prompt_moves_into_the_first_user_turn() -> None:
    body = conform_request(
        "/v1/messages/count_tokens",
        {"system": [{"type": "text", "text": "s"}], "messages": [say("user", "u")]},
        TemplateRules(system="none"),
    )
    assert body == {
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "s"}, {"type": "text", "text": "u"},
            ]},
        ]
    }  # fmt: skip


RESPONSES: dict[str, object] = {
    "instructions": "be brief",
    "input": [
        {"role": "developer", "content": [{"type": "input_text", "text": "and kind"}]},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"role": "user", "content": "now"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "k"}]},
        {"type": "function_call", "call_id": "call_0123456789", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "two"},
        {"type": "function_call_output", "call_id": "call_0123456789", "output": "one"},
        {"role": "user", "content": "go on"},
    ],
}


def test_a_conversation_of_responses_conforms() -> None:
    body = conform_request("/v1/responses", RESPONSES, MISTRAL_COMMON)
    assert body["instructions"] == "be brief\n\nand kind"
    items = cast("list[ChatMessage]", body["input"])
    calls = [item for item in items if str(item["type"]).endswith("_call")]
    results = [item for item in items if str(item["type"]).endswith("_output")]
    assert [item["call_id"] for item in results] == [item["call_id"] for item in calls]
    assert [item["output"] for item in results] == ["one", "two"]
    assert calls[1]["input"] == "x"
    assert [item["role"] for item in items if item["type"] == "message"][:3] == [
        "user", "assistant", "user",
    ]  # fmt: skip
    assert any(item["type"] == "reasoning" for item in items)


def test_a_plain_text_input_is_one_user_message() -> None:
    request: dict[str, object] = {"instructions": "be brief", "input": "why?"}
    body = conform_request("/v1/responses", request, TemplateRules(system="none"))
    assert body == {"input": [{"type": "message", "role": "user", "content": "be brief\n\nwhy?"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", ANTHROPIC),
        ("/v1/responses", {"instructions": "s", "input": [say("user")]}),
        ("/v1/completions", {"a": 1}),
        ("/v1/chat/completions", {"messages": "x"}),
    ],
)
def test_an_accepted_conversation_stays_unchanged(path: str, body: dict[str, object]) -> None:
    assert conform_request(path, body, ACCEPTS_ALL) is body
    assert conform_request(path, body, TemplateRules(blank=False)) == body


CALLS: list[ChatMessage] = [
    say("user"),
    say("assistant", "words", tool_calls=[call("a"), call("b"), {"id": "c", "function": "odd"}]),
    say("tool", "one", tool_call_id="a"),
    say("tool", "more", tool_call_id="a"),
    say("tool", "orphan", tool_call_id="of nothing"),
]


def test_calls_and_results_become_text_for_a_template_without_tools() -> None:
    parts = [{"type": "image_url"}]
    messages = [*CALLS, say("tool", tool_call_id="b") | {"content": parts}]
    written = conform(messages, TemplateRules(tools=False))
    assert [role_of(message) for message in written] == ["user", "assistant"] + ["user"] * 4
    assert not any(map(calls_of, written))
    assert str(written[1]["content"]).startswith("words\n\nTool call: f {}\n\nTool call: f {}")
    assert [message["content"] for message in written[2:]] == [
        "Tool result: one",
        "Tool result: more",
        [{"type": "text", "text": "Tool result:"}, *parts],
        "Tool result: orphan",
    ]


def test_a_result_without_its_call_stays_where_rules_accept_it() -> None:
    alone = [say("user"), say("tool", "x", tool_call_id="a long id")]
    assert conform(alone, TemplateRules(developer=False)) == alone
    [_, nine] = conform(alone, TemplateRules(call_ids="alnum9"))
    assert re.fullmatch("[0-9a-f]{9}", str(nine["tool_call_id"]))
    [_, text] = conform(alone, TemplateRules(paired=True))
    assert text["content"] == "Tool result: x"


def test_one_call_a_turn_and_each_with_one_result() -> None:
    rules = TemplateRules(one_call=True, paired=True)
    written = conform(CALLS, rules)
    assert [len(calls_of(message)) for message in written] == [0, 1, 0, 1, 0, 1, 0, 0]
    assert written[2]["content"] == "one\n\nmore"
    assert written[4]["content"] == "..."
    assert written[-1]["content"] == "Tool result: orphan"


def test_an_empty_system_message_is_dropped_where_none_is_accepted() -> None:
    empty: ChatMessage = {"role": "system", "content": ""}
    rules = TemplateRules(system="none")
    assert conform([empty, say("user")], rules) == [say("user")]
    assert [role_of(message) for message in conform([empty], rules)] == ["user"]


def test_reasoning_is_merged_with_its_message() -> None:
    messages = [
        say("user"),
        say("assistant", "one", reasoning="a"),
        say("assistant", "two", reasoning="b"),
        say("assistant", "three"),
    ]
    [_, written] = conform(messages, TemplateRules(alternates=True))
    assert (written["content"], written["reasoning"]) == ("one\n\ntwo\n\nthree", "a\n\nb")


def test_a_turn_with_only_reasoning_is_blank() -> None:
    thought: list[object] = [{"type": "thinking", "thinking": "hm"}]
    messages = [say("user"), say("assistant") | {"content": thought}]
    [_, written] = conform(messages, TemplateRules(blank=False))
    assert written["content"] == [*thought, {"type": "text", "text": "..."}]


def test_calls_in_responses_join_the_previous_message() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "x"}
    body: dict[str, object] = {"input": [say("user"), item, item | {"call_id": "d"}, result]}
    made = conform_request("/v1/responses", body, TemplateRules(paired=True, developer=False))
    assert [item["type"] for item in cast("list[ChatMessage]", made["input"])] == [
        "message", "function_call", "function_call", "function_call_output", "function_call_output",
    ]  # fmt: skip


def test_a_call_alone_in_messages_and_a_result_alone() -> None:
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a"}
    given = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    body = conform_request("/v1/messages", {"messages": given}, TemplateRules(call_ids="alnum9"))
    [_, call_of, result_of] = cast("list[ChatMessage]", body["messages"])
    assert kinds(call_of) == "tool_use"
    assert kinds(result_of) == "tool_result"
    assert conform_request(
        "/v1/messages", {"messages": [{"role": "user", "content": []}]}, STRICTEST
    )


def test_an_unanswered_call_is_answered_where_turns_alternate_in_responses() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    body: dict[str, object] = {"input": [say("user"), item, say("assistant"), say("user")]}
    made = conform_request("/v1/responses", body, RULES["mistral-v3"])
    kinds_of = [item.get("role", item["type"]) for item in cast("list[ChatMessage]", made["input"])]
    # Else the engine joins the call with the text after it, and a template misses a turn.
    assert kinds_of == [
        "user", "assistant", "user", "function_call", "function_call_output", "assistant", "user",
    ]  # fmt: skip


def test_items_that_become_adjacent_in_responses_are_read_as_the_engine_does() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    given: list[object] = [thought, say("developer"), item, say("user")]
    made = conform_request("/v1/responses", {"input": given}, RULES["ministral-2512"])
    items = cast("list[ChatMessage]", made["input"])
    assert [item.get("role", item["type"]) for item in items] == [
        "user", "reasoning", "assistant", "function_call", "function_call_output",
        "assistant", "user",
    ]  # fmt: skip


def test_reasoning_items_stay_before_their_message() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    given: list[object] = [say("assistant"), thought, thought, say("user")]
    made = conform_request("/v1/responses", {"input": given}, TemplateRules(user="first"))
    items = cast("list[ChatMessage]", made["input"])
    assert [item["type"] for item in items] == [
        "message", "reasoning", "message", "reasoning", "message",
    ]  # fmt: skip


def test_text_parts_are_joined_for_a_template_that_reads_only_the_first() -> None:
    parts: list[object] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    picture: list[object] = [*parts, {"type": "image_url"}]
    messages = [
        say("system") | {"content": parts},
        say("user") | {"content": picture},
    ]
    prompt = RENDERERS["gemma3"].render(conform(messages[:1], RULES["gemma3"]), parts=True)
    assert "one\ntwo" in prompt
    [system, user] = conform(messages, TemplateRules(parts=False))
    assert (system["content"], user["content"]) == ("one\ntwo", picture)


def test_mistral_common_gets_a_conversation_that_ends_with_the_user() -> None:
    written = conform([say("user"), say("assistant")], MISTRAL_COMMON)
    assert [role_of(message) for message in written] == ["user", "assistant", "user"]


def test_images_of_a_result_move_into_a_user_turn() -> None:
    picture: ChatMessage = {"type": "image", "source": {}}
    text: ChatMessage = {"type": "text", "text": "seen"}
    use: ChatMessage = {"type": "tool_use", "id": "abcdefgh1", "name": "f", "input": {}}
    result: ChatMessage = {"type": "tool_result", "tool_use_id": "abcdefgh1"}
    messages: list[object] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result | {"content": [text, picture]}]},
        {"role": "user", "content": "and"},
    ]
    made = conform_request("/v1/messages", {"messages": messages}, RULES["ministral-2512"])
    written = cast("list[ChatMessage]", made["messages"])
    assert [(item["role"], kinds(item)) for item in written] == [
        ("user", "text"),
        ("assistant", "tool_use"),
        ("user", "tool_result"),
        ("assistant", "text"),
        ("user", "image text"),
    ]
    assert blocks(written, "tool_result")[0]["content"] == [text]


def test_parts_of_responses_keep_their_names_beside_a_moved_system_message() -> None:
    look: ChatMessage = {"type": "input_text", "text": "look"}
    picture: ChatMessage = {"type": "input_image", "image_url": "data:"}
    given: list[object] = [say("user") | {"content": [look, picture]}]
    body: dict[str, object] = {"instructions": "be brief", "input": given}
    made = conform_request("/v1/responses", body, TemplateRules(system="none"))
    [user] = cast("list[ChatMessage]", made["input"])
    brief: ChatMessage = {"type": "input_text", "text": "be brief"}
    assert user["content"] == [brief, look, picture]
