"""Messages keep their meaning on the way to vLLM."""

from __future__ import annotations

import pytest

from vllamad.translate.content.images import Image
from vllamad.translate.ollama.messages_to_engine import engine_messages
from vllamad.translate.ollama.request import Message, PastFunctionCall, PastToolCall


def test_calls_become_openai_calls_with_arguments_as_text():
    function = PastFunctionCall(name="f", arguments={"b": 1, "a": "é"})
    call = PastToolCall(id="c1", function=function)
    assert engine_messages([Message(role="assistant", tool_calls=[call])]) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"b":1,"a":"é"}'},
                }
            ],
        }
    ]


def test_thinking_is_handed_back_to_the_assistant_only():
    spelled = engine_messages(
        [Message(role="user", thinking="x"), Message(role="assistant", thinking="hm")]
    )
    assert "reasoning" not in spelled[0]
    assert spelled[1]["reasoning"] == "hm"


def test_an_image_without_text_stands_alone():
    assert engine_messages([Message(role="user", images=[Image("image/png", "aGk=")])]) == [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}],
        }
    ]


CALLS_F = PastFunctionCall(name="f")
CALLS_G = PastFunctionCall(name="g")
CALLS = Message(
    role="assistant",
    tool_calls=[
        PastToolCall(function=CALLS_F),
        PastToolCall(id="given", function=CALLS_G),
        PastToolCall(function=CALLS_F),
    ],
)


@pytest.mark.parametrize(
    ("answers", "ids"),
    [
        ([{"tool_name": "g"}, {"tool_name": "f"}, {"tool_name": "f"}],
         ["given", "call_0_0", "call_0_2"]),
        ([{}, {}, {}], ["call_0_0", "given", "call_0_2"]),
        ([{"tool_call_id": "given"}, {}], ["given", "call_0_0"]),
        ([{"tool_call_id": "other"}, {}], ["other", "call_0_0"]),
        ([{"tool_name": "unheard"}], ["call_0_0"]),
        ([{}, {}, {}, {}], ["call_0_0", "given", "call_0_2", None]),
    ],
)  # fmt: skip
def test_tool_answers_find_their_calls_by_id_name_or_position(answers, ids):
    spelled = engine_messages([CALLS, *(Message(role="tool", **answer) for answer in answers)])
    assert [message.get("tool_call_id") for message in spelled[1:]] == ids
    assert [message.get("name") for message in spelled[1:]] == [a.get("tool_name") for a in answers]


def roles(text: str) -> list[dict[str, object]]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[letter], "content": str(i)} for i, letter in enumerate(text)]
