"""OpenAI's and Anthropic's APIs on real vLLM, through their official clients."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import anthropic
import openai
import pytest

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL, QUESTION

pytestmark = pytest.mark.e2e

ASKED: Any = [{"role": "user", "content": QUESTION}]
GREEDY: Any = {"temperature": 0}
CITY: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PICTURE: Any = [{"role": "user", "content": [{"type": "image", "source": PNG}]}]
TOOL: Any = {"name": "f", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def oai(real: Daemon) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", timeout=180) as one:
        yield one


@pytest.fixture
def claude(real: Daemon) -> Generator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=real.url, api_key="none", timeout=180) as one:
        yield one


def test_a_response(oai: openai.OpenAI) -> None:
    answer = oai.responses.create(model=MODEL.upper(), input=QUESTION, **GREEDY)
    assert "Paris" in answer.output_text
    assert answer.status == "completed"
    assert answer.model == MODEL.upper()
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (42, 8)


def test_a_response_in_events(oai: openai.OpenAI) -> None:
    events = list(oai.responses.create(model=MODEL.upper(), input=QUESTION, stream=True, **GREEDY))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(deltas) == last.response.output_text
    assert "Paris" in last.response.output_text
    assert last.response.model == MODEL.upper()


def test_a_response_cut_short_says_so(oai: openai.OpenAI) -> None:
    answer = oai.responses.create(model=MODEL, input=QUESTION, max_output_tokens=3, **GREEDY)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    longer = oai.responses.create(model=MODEL, input=QUESTION, max_output_tokens=10**6, **GREEDY)
    assert longer.status == "completed"


def test_a_response_goes_on_with_what_was_said(oai: openai.OpenAI) -> None:
    first = oai.responses.create(model=MODEL, input=QUESTION, **GREEDY)
    again = {"role": "user", "content": "Say it once more."}

    def asked_with(said: Any) -> int:
        answer = oai.responses.create(
            model=MODEL, input=said, instructions="Be brief.", max_output_tokens=2, **GREEDY
        )
        assert answer.usage is not None
        return answer.usage.input_tokens

    assert asked_with([*ASKED, *first.output, again]) > asked_with([*ASKED, again]) + 7
    with pytest.raises(openai.BadRequestError, match="previous_response_id is not supported"):
        oai.responses.create(model=MODEL, input="And?", previous_response_id=first.id)


def test_a_response_takes_parts_tools_results_and_reasoning(oai: openai.OpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "Paris"},
    ]
    answer = oai.responses.create(model=MODEL, input=items, max_output_tokens=5, **GREEDY)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5


def test_a_response_by_a_schema(oai: openai.OpenAI) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": CITY, "strict": True}}
    answer = oai.responses.create(
        model=MODEL, input=QUESTION, text=text, max_output_tokens=100, **GREEDY
    )
    assert set(json.loads(answer.output_text)) == {"city"}


def test_logprobs_of_a_response(oai: openai.OpenAI) -> None:
    answer = oai.responses.create(
        model=MODEL,
        input=QUESTION,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=2,
        **GREEDY,
    )
    [message] = answer.output
    assert message.type == "message"
    [part] = message.content
    assert part.type == "output_text"
    assert part.logprobs
    assert len(part.logprobs[0].top_logprobs) == 2


def test_a_message(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model=MODEL.upper(), max_tokens=50, messages=ASKED)
    [block] = answer.content
    assert block.type == "text"
    assert block.text
    assert answer.model == MODEL.upper()
    assert answer.stop_reason in ("end_turn", "max_tokens")


def test_a_message_in_events(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model=MODEL.upper(), max_tokens=50, messages=ASKED, extra_body=GREEDY
    ) as events:
        text = "".join(events.text_stream)
        last = events.get_final_message()
    assert "Paris" in text
    assert last.model == MODEL.upper()
    assert last.stop_reason == "end_turn"
    counted = last.usage
    cached = (counted.cache_read_input_tokens or 0) + (counted.cache_creation_input_tokens or 0)
    assert counted.input_tokens + cached == 42
    assert counted.output_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences_end_a_message(claude: anthropic.Anthropic, stream: bool) -> None:
    with claude.messages.stream(
        model=MODEL, max_tokens=50, messages=ASKED, stop_sequences=["Paris"], extra_body=GREEDY
    ) as events:
        streamed = events.get_final_message()
    whole = claude.messages.create(
        model=MODEL, max_tokens=50, messages=ASKED, stop_sequences=["Paris"], extra_body=GREEDY
    )
    answer = streamed if stream else whole
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "Paris")
    [block] = answer.content
    assert block.type == "text"
    assert "Paris" not in block.text


def test_system_prompts_are_counted_in_both_forms(claude: anthropic.Anthropic) -> None:
    def count(**more: Any) -> int:
        return claude.messages.count_tokens(model=MODEL, messages=ASKED, **more).input_tokens

    plain = count(system="Speak like a pirate.")
    assert count() == 42
    assert plain != 42
    assert count(system=[{"type": "text", "text": "Speak like a pirate."}]) == plain


def test_a_message_may_ask_for_more_than_there_is(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model=MODEL,
        max_tokens=64_000,
        messages=ASKED,
        thinking={"type": "enabled", "budget_tokens": 2048},
        extra_body=GREEDY,
        timeout=180,
    )
    assert answer.stop_reason == "end_turn"


def test_a_conversation_with_tools_goes_on(claude: anthropic.Anthropic) -> None:
    said: Any = [
        *ASKED,
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": [
                {"type": "text", "text": "Paris", "cache_control": {"type": "ephemeral"}}]}]},
    ]  # fmt: skip
    answer = claude.messages.create(model=MODEL, max_tokens=1, messages=said, extra_body=GREEDY)
    assert answer.usage.output_tokens == 1


def test_what_a_message_cannot_have_is_refused(claude: anthropic.Anthropic) -> None:
    def ask(model: str = MODEL, **more: Any) -> None:
        claude.messages.create(model=model, max_tokens=5, messages=ASKED, **more)

    with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found"):
        ask("nope")
    with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
        ask(tools=[TOOL])
    with pytest.raises(anthropic.BadRequestError, match="does not support image input"):
        claude.messages.create(model=MODEL, max_tokens=5, messages=PICTURE)


def test_fields_that_ollama_ignores_work_in_a_chat(oai: openai.OpenAI) -> None:
    answer = oai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        max_completion_tokens=3,
        n=2,
        logit_bias={"0": -100},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tool_choice="none",
        reasoning_effort="low",
    )
    assert len(answer.choices) == 2
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


def test_an_effort_that_does_not_exist_is_refused(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match='invalid reasoning value: "bogus"'):
        oai.chat.completions.create(model=MODEL, messages=ASKED, reasoning_effort="bogus")  # type: ignore[arg-type]


def test_a_negative_limit_is_none(oai: openai.OpenAI) -> None:
    answer = oai.chat.completions.create(model=MODEL, messages=ASKED, max_tokens=-1, **GREEDY)
    assert answer.choices[0].finish_reason == "stop"
