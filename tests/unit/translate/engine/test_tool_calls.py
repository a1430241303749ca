"""Tool calls are complete, in order, with their arguments as objects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import EngineRefused
from vllamad.translate.engine.chunks import CallPiece, FunctionPiece
from vllamad.translate.engine.tool_calls import CallBuffer, ToolCall


def piece(
    index: int, arguments: str | None = None, name: str | None = None, call_id: str | None = None
) -> CallPiece:
    return CallPiece(index, call_id, FunctionPiece(name, arguments))


def whole(*pieces: CallPiece, cut_short: bool = False) -> tuple[ToolCall, ...]:
    buffer = CallBuffer()
    for each in pieces:
        buffer.add([each])
    calls = buffer.take_whole(cut_short=cut_short)
    assert buffer.take_whole(cut_short=False) == ()
    return calls


def test_fragments_are_joined_in_the_engines_order():
    assert whole(
        piece(1, None, "g", "c2"),
        piece(0, '{"b"', "f", "c1"),
        piece(0, ": 1,"),
        piece(1, "{}"),
        piece(0, '\n"a": 2}'),
    ) == (ToolCall("c1", "f", {"b": 1, "a": 2}), ToolCall("c2", "g", {}))


def test_a_call_without_id_or_arguments_gets_them():
    assert whole(CallPiece(3), piece(3, None, "f")) == (ToolCall("call_00000003", "f", {}),)


def test_arguments_that_are_encoded_twice_are_read():
    assert whole(piece(0, '"{\\"a\\": 1}"', "f", "c")) == (ToolCall("c", "f", {"a": 1}),)


@pytest.mark.parametrize("arguments", ['{"a":', '"Paris"', "[1]", "null", "NaN", '"'])
def test_arguments_that_are_no_object_are_the_engines_failure(arguments):
    with pytest.raises(EngineRefused) as refused:
        whole(piece(0, arguments, 'f"'))
    assert refused.value.message == r'engine returned invalid tool call arguments for "f\""'
    assert refused.value.status == 500


def test_a_call_cut_short_by_the_token_limit_is_left_out():
    pieces = (piece(0, "{}", "f", "c1"), piece(1, '{"a":', "g", "c2"))
    assert whole(*pieces, cut_short=True) == (ToolCall("c1", "f", {}),)


@given(
    st.dictionaries(st.text(), st.integers(-(2**63), 2**63) | st.text() | st.lists(st.booleans())),
    st.data(),
)
def test_any_split_of_the_arguments_gives_the_same_object(arguments, data):
    text = json.dumps(arguments)
    cut = data.draw(st.integers(0, len(text)))
    (call,) = whole(piece(0, text[:cut], "f", "c"), piece(0, text[cut:]))
    assert call.arguments == arguments
    assert list(call.arguments) == list(arguments)
