"""OpenAI clients get the bytes of the engine, with the requested model name."""

from __future__ import annotations

import pytest

from tests.support.paths import RECORDED
from vllamad.errors import EngineRefused, WorkerLost
from vllamad.translate.openai.passthrough import OpenAIPassthrough

CHAT = (RECORDED / "chat.sse").read_bytes()


def verbatim(asked: str = "smollm2:135m", *, stream: bool = True) -> OpenAIPassthrough:
    return OpenAIPassthrough(stream=stream, served_name="smollm2:135m", requested_name=asked)


@pytest.mark.parametrize("size", [1, 7, 100, len(CHAT)])
def test_events_pass_unchanged_for_any_chunking(size: int) -> None:
    output = verbatim()
    pieces = [CHAT[at : at + size] for at in range(0, len(CHAT), size)]
    assert b"".join(output.feed(piece, 0) for piece in pieces) + output.finish(0) == CHAT
    assert output.complete
    assert output.failed is None


def test_the_response_has_the_requested_model_name() -> None:
    out = verbatim("SmolLM2:135M").feed(CHAT, 0)
    assert b'"model":"SmolLM2:135M"' in out
    assert b'"model":"smollm2:135m"' not in out


def test_a_model_name_in_the_text_is_not_renamed() -> None:
    event = b'data: {"model":"a","text":"\\"model\\":\\"a\\" and \\"model\\":\\"a\\""}\n\n'
    output = OpenAIPassthrough(stream=True, served_name="a", requested_name="b")
    assert output.feed(event, 0) == event.replace(b'{"model":"a"', b'{"model":"b"', 1)


def test_an_object_comes_whole_at_the_end() -> None:
    body = (RECORDED / "chat.json").read_bytes()
    output = verbatim(stream=False)
    assert output.feed(body[:10], 0) + output.feed(body[10:], 0) == b""
    assert output.finish(0) == body


def test_a_broken_off_stream_ends_with_an_error_and_no_done() -> None:
    output = verbatim()
    first = CHAT.index(b"\n\n") + 2
    output.feed(CHAT[:first], 0)
    out = output.finish(0)
    assert out.startswith(b'data: {"error":{"message":"model runner has unexpectedly stopped')
    assert b"[DONE]" not in out
    assert isinstance(output.failed, WorkerLost)
    assert output.fail(WorkerLost("again")) == b""


def test_a_failure_before_the_first_event_sends_no_event() -> None:
    output = verbatim()
    assert output.fail(WorkerLost("boom")) == b""
    assert output.failed is not None


ERROR = (
    b'data: {"error":{"message":"no more","type":"BadRequestError","param":null,"code":400}}\n\n'
)


def test_an_engine_error_ends_the_stream_without_done() -> None:
    output = verbatim()
    first = CHAT[: CHAT.index(b"\n\n") + 2]
    out = output.feed(first + ERROR + b"data: [DONE]\n\n", 0)
    assert out.startswith(first)
    assert out.count(b'"error"') == 1
    assert b"[DONE]" not in out
    assert output.failed is not None


@pytest.mark.parametrize(("event", "status"), [(ERROR, 400), (b'data: {"error":"boom"}\n\n', 500)])
def test_an_engine_error_before_the_first_event_becomes_a_status(event: bytes, status: int) -> None:
    output = verbatim()
    assert output.feed(event, 0) == b""
    assert isinstance(output.failed, EngineRefused)
    assert output.failed.status == status


def test_the_usage_is_counted_and_sent_only_on_request() -> None:
    shown = verbatim()
    hidden = OpenAIPassthrough(
        stream=True, served_name="smollm2:135m", requested_name="smollm2:135m", usage=False
    )
    assert b'"choices":[]' in shown.feed(CHAT, 0)
    out = hidden.feed(CHAT, 0)
    assert b'"choices":[]' not in out
    assert out.endswith(b"data: [DONE]\n\n")
    for output in (shown, hidden):
        assert (output.prompt_tokens, output.completion_tokens) == (37, 8)


def test_the_usage_of_an_object_is_counted() -> None:
    output = verbatim(stream=False)
    output.feed((RECORDED / "chat.json").read_bytes(), 0)
    output.finish(0)
    assert output.prompt_tokens == 37


def test_invalid_json_passes_uncounted() -> None:
    output = verbatim()
    assert output.feed(b'data: "choices":[] nonsense\n\n', 0) == b'data: "choices":[] nonsense\n\n'
    assert output.completion_tokens == 0
