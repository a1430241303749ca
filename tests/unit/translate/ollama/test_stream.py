"""Each stream of the engine becomes Ollama's lines, each once, and ends with done or an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.family_scripts import ACTS, RECORDED
from vllamad.errors import EngineRefused, WorkerLost
from vllamad.translate.engine.refusal_texts import REFUSED
from vllamad.translate.engine.sse import EventReader
from vllamad.translate.error_bodies import STOPPED, api_error
from vllamad.translate.ollama import encode
from vllamad.translate.ollama.stream import DONE, Reply, Times

NOW = 1787338102 * 10**9
TS = "2026-08-21T18:48:22Z"
TIMES = Times(received=1000, granted=3000, first_token=7000, last_token=15000, ended=32000)
METRICS = (
    '"total_duration":31000,"load_duration":2000,"prompt_eval_count":3,'
    '"prompt_eval_duration":4000,"eval_count":5,"eval_duration":8000'
)
USAGE = b'{"choices":[],"usage":{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5}}'


class CountedReply(Reply):
    """Counts the events that are copied unread, and those that are parsed."""

    copied = parsed = 0

    def feed(self, payloads: list[bytes], now_ns: int) -> bytes:
        parsed_before = self.parsed
        lines = super().feed(payloads, now_ns)
        self.copied += len(payloads) - (self.parsed - parsed_before)
        return lines

    def _parse(self, payload: bytes, start: bytes) -> bytes:
        self.parsed += 1
        return super()._parse(payload, start)


def chunk(
    delta: dict[str, object], finish: str | None = None, created: int = 1, **more: object
) -> bytes:
    """A chat chunk with vLLM's keys in vLLM's order."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish} | more
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": created,
            "model": "served",
            "choices": [choice | {"token_ids": None}],
        }
    )


def content(text: str, finish: str | None = None) -> bytes:
    return chunk({"content": text}, finish)


def completion(text: str, finish: str | None = None, logprobs: object = None) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
    return msgspec.json.encode({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})


ROLE = chunk({"role": "assistant", "content": ""})


def answer(reply: Reply, *payloads: bytes) -> str:
    """Feed one event at a time, then end."""
    fed = b"".join(reply.feed([payload], NOW) for payload in payloads)
    return (fed + reply.finish(NOW, TIMES)).decode()


def said(text: str) -> str:
    """A line of a chat stream, from the message's fields after its role."""
    message = f'{{"role":"assistant",{text}}}'
    return f'{{"model":"test","created_at":"{TS}","message":{message},"done":false}}\n'


LAST = (
    f'{{"model":"test","created_at":"{TS}","message":{{"role":"assistant","content":""}},'
    f'"done":true,"done_reason":"stop",{METRICS}}}\n'
)


def test_a_chat_stream_is_a_line_a_chunk_and_a_last_line_with_counts():
    reply = CountedReply(encode.CHAT, "test")
    text = answer(reply, ROLE, content("Hi"), content("!"), content("", "stop"), USAGE, DONE)
    assert text == said('"content":"Hi"') + said('"content":"!"') + LAST
    assert reply.complete
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 5)


def test_the_last_token_may_come_with_the_finish_reason():
    text = answer(
        CountedReply(encode.CHAT, "test"), content("Hi"), content("!", "stop"), USAGE, DONE
    )
    assert text == said('"content":"Hi"') + said('"content":"!"') + LAST


def test_without_a_stream_the_same_comes_as_one_object():
    reply = CountedReply(encode.CHAT, "test", stream=False)
    text = answer(reply, ROLE, content("Hi"), content("!", "stop"), USAGE, DONE)
    assert text == LAST.replace('"content":""', '"content":"Hi!"').rstrip("\n")


def test_nothing_has_started_before_the_end_without_a_stream():
    reply = CountedReply(encode.CHAT, "test", stream=False)
    assert reply.feed([ROLE, content("Hi", "stop")], NOW) == b""
    assert not reply.started
    reply.finish(NOW, TIMES)
    assert reply.started


def test_generate_has_keys_of_its_own():
    reply = CountedReply(encode.GENERATE, "test")
    assert answer(reply, ROLE, content("Hi"), content("!"), content("", "stop"), USAGE, DONE) == (
        f'{{"model":"test","created_at":"{TS}","response":"Hi","done":false}}\n'
        f'{{"model":"test","created_at":"{TS}","response":"!","done":false}}\n'
        f'{{"model":"test","created_at":"{TS}","response":"","done":true,"done_reason":"stop",'
        f"{METRICS}}}\n"
    )


def test_raw_generate_reads_completion_chunks():
    reply = CountedReply(encode.GENERATE, "test")
    text = answer(reply, completion("Hi"), completion("!"), completion("", "length"), USAGE, DONE)
    assert [json.loads(line)["response"] for line in text.splitlines()] == ["Hi", "!", ""]
    assert '"done_reason":"length"' in text
    assert reply.copied == 1


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(
    ("spelling", "line"),
    [
        (
            encode.CHAT,
            '"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n',
        ),
        (encode.GENERATE, '"response":"","thinking":"hm","done":false}\n'),
    ],
)
def test_reasoning_is_thinking(spelling, line, key):
    reply = CountedReply(spelling, "think")
    expected = f'{{"model":"think","created_at":"{TS}",{line}'.encode()
    assert reply.feed([chunk({key: "hm"})] * 3, NOW) == expected * 3
    assert (reply.copied, reply.parsed) == (2, 1)
    assert b'"content":"so"' in reply.feed([content("so")], NOW) or spelling is encode.GENERATE


def test_thinking_that_was_not_wanted_is_dropped():
    reply = CountedReply(encode.CHAT, "test", thinking=False)
    assert reply.feed([chunk({"reasoning": "hm"})] * 3, NOW) == b""
    assert reply.feed([chunk({"reasoning": "hm", "content": "so"})], NOW).decode() == said(
        '"content":"so"'
    )


def test_thinking_and_content_in_one_chunk_are_one_line():
    line = CountedReply(encode.CHAT, "test").feed(
        [chunk({"reasoning": "hm", "content": "so"})], NOW
    )
    assert line.decode() == said('"content":"so","thinking":"hm"')


def test_without_a_stream_thinking_is_joined_too():
    reply = CountedReply(encode.CHAT, "test", stream=False)
    text = answer(
        reply, chunk({"reasoning": "h"}), chunk({"reasoning": "m"}), content("so", "stop")
    )
    assert '"content":"so","thinking":"hm"}' in text


CALL: dict[str, object] = {"tool_calls": [{"index": 0, "id": "call_x", "type": "function",
                        "function": {"name": "get_weather", "arguments": ""}}]}  # fmt: skip
SPELLED = (
    '"content":"","tool_calls":[{"id":"call_x","function":'
    '{"index":0,"name":"get_weather","arguments":{"city":"Paris"}}}]'
)


def arguments(text: str) -> bytes:
    return chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})


@pytest.mark.parametrize("stream", [True, False])
def test_tool_calls_come_whole_and_the_reason_is_stop(stream):
    reply = CountedReply(encode.CHAT, "test", stream=stream)
    pieces = [chunk(CALL), arguments('{"city":'), arguments('"Paris"}'), chunk({}, "tool_calls")]
    text = answer(reply, ROLE, *pieces, USAGE, DONE)
    if stream:
        assert text == said(SPELLED) + LAST
    else:
        assert text == LAST.replace('"content":""', SPELLED).rstrip("\n")


def test_bad_tool_arguments_end_in_an_error():
    reply = CountedReply(encode.CHAT, "test")
    assert answer(reply, chunk(CALL), arguments("{"), chunk({}, "tool_calls"), DONE) == ""
    assert reply.failed is not None
    assert not reply.started


LOGPROB = {"token": "Hi", "logprob": -0.01, "bytes": [72, 105],
           "top_logprobs": [{"token": "Yo", "logprob": -0.25, "bytes": None}]}  # fmt: skip
LOGPROBS = (
    '"logprobs":[{"token":"Hi","logprob":-0.01,"bytes":[72,105],'
    '"top_logprobs":[{"token":"Yo","logprob":-0.25}]}]'
)


def test_logprobs_stand_after_done():
    reply = CountedReply(encode.CHAT, "test", top_logprobs=1)
    line = reply.feed([chunk({"content": "Hi"}, logprobs={"content": [LOGPROB]})], NOW).decode()
    assert line == said('"content":"Hi"')[:-2] + f",{LOGPROBS}}}\n"


def test_a_chunk_of_logprobs_alone_is_a_line():
    reply = CountedReply(encode.CHAT, "test")
    assert LOGPROBS in reply.feed([chunk({}, logprobs={"content": [LOGPROB]})], NOW).decode()


def test_without_a_stream_logprobs_are_joined():
    reply = CountedReply(encode.GENERATE, "test", stream=False)
    piece = chunk({"content": "Hi"}, logprobs={"content": [LOGPROB]})
    body = json.loads(answer(reply, piece, piece, content("", "stop"), USAGE))
    assert [entry["token"] for entry in body["logprobs"]] == ["Hi", "Hi"]
    assert list(body)[-1] == "logprobs"


@pytest.mark.parametrize(
    ("top", "alternatives"),
    [
        (0, None),
        (1, [{"token": "Yo", "logprob": -0.1, "bytes": [89, 111]}]),
        (
            2,
            [
                {"token": "Yo", "logprob": -0.1, "bytes": [89, 111]},
                {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
            ],
        ),
    ],
)
def test_logprobs_of_a_completion_get_the_chat_shape(top, alternatives):
    reply = CountedReply(encode.GENERATE, "test", top_logprobs=top)
    logprobs = {
        "tokens": ["é", ""],
        "token_logprobs": [-0.5, None],
        "top_logprobs": [{"é": -0.5, "Yo": -0.1}],
        "text_offset": [0, 1],
    }
    first, second = json.loads(reply.feed([completion("é", None, logprobs)], NOW))["logprobs"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("é", -0.5, [195, 169])
    assert first.get("top_logprobs") == alternatives
    assert second == {"token": "", "logprob": -9999.0}


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("repetition", "stop")],
)
def test_the_reason_is_ollamas(finish, reason):
    text = answer(CountedReply(encode.CHAT, "test"), content("x", finish), USAGE, DONE)
    assert json.loads(text.splitlines()[-1])["done_reason"] == reason


def test_an_abort_has_no_reason():
    text = answer(CountedReply(encode.CHAT, "test"), content("x", "abort"), DONE)
    assert "done_reason" not in text
    assert '"done":true' in text


def test_the_engines_own_clock_is_believed():
    metrics = {"time_to_first_token_ms": 49.5, "generation_time_ms": 901.25, "queue_time_ms": 0.5}
    usage = json.dumps({"choices": [], "usage": {}, "metrics": metrics}).encode()
    last = json.loads(
        answer(CountedReply(encode.CHAT, "test", stream=False), content("x", "stop"), usage)
    )
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (49_000_000, 901_250_000)


def test_durations_are_never_zero():
    at_once = Times(received=5, granted=5, ended=5)
    reply = CountedReply(encode.CHAT, "test", stream=False)
    reply.feed([content("x", "stop")], NOW)
    last = json.loads(reply.finish(NOW, at_once))
    names = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    assert [last[name] for name in names] == [1, 1, 1, 1]
    assert "eval_count" not in last


@pytest.mark.case("B14")
def test_a_muted_reply_counts_the_prompt_and_says_nothing():
    reply = CountedReply(encode.GENERATE, "test", muted=True)
    last = json.loads(answer(reply, content("x"), content("y", "length"), USAGE, DONE))
    assert (last["response"], last["done_reason"]) == ("", "length")
    assert last["prompt_eval_count"] == 3
    assert last["eval_count"] == reply.completion_tokens == 5


def error(**fault: object) -> bytes:
    return json.dumps({"error": fault}).encode()


def test_an_error_before_any_output_leaves_the_status_open():
    reply = CountedReply(encode.CHAT, "test")
    assert answer(reply, ROLE, error(message="rate limit exceeded", code=429), DONE) == ""
    assert isinstance(reply.failed, EngineRefused)
    assert (reply.failed.status, reply.failed.message) == (429, "rate limit exceeded")
    assert not reply.started


@pytest.mark.parametrize("at_once", [True, False])
def test_an_error_after_output_is_the_last_line(at_once):
    reply = CountedReply(encode.CHAT, "test")
    payloads = [content("Hi"), error(message="boom"), content("late"), DONE]
    out = reply.feed(payloads, NOW) if at_once else b"".join(reply.feed([p], NOW) for p in payloads)
    out += reply.finish(NOW, TIMES)
    assert out.decode() == said('"content":"Hi"') + api_error(STOPPED).decode() + "\n"


@pytest.mark.parametrize(
    ("payload", "status", "message"),
    [
        (error(message="boom", code="x"), 500, STOPPED),
        (error(message="boom", code=200), 500, STOPPED),
        (error(message="boom", code=400), 400, REFUSED),
        (b'{"error":"plain"}', 500, STOPPED),
        (b"not json", 500, "cannot read the engine's answer"),
        (b'{"choices":[{"delta":{"content":1}}]}', 500, "cannot read the engine's answer"),
        (b'{"choices":"\xff"}', 500, "cannot read the engine's answer"),
    ],
)
def test_an_engines_error_is_told(payload, status, message):
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([payload], NOW)
    assert isinstance(reply.failed, EngineRefused)
    assert (reply.failed.status, reply.failed.message) == (status, message)


@pytest.mark.parametrize("payloads", [[], [ROLE], [content("Hi")], [content("Hi"), DONE]])
def test_a_stream_that_just_ends_is_no_done(payloads):
    reply = CountedReply(encode.CHAT, "test")
    text = answer(reply, *payloads)
    assert '"done":true' not in text
    assert isinstance(reply.failed, WorkerLost)
    assert text.endswith(json.dumps({"error": STOPPED}, separators=(",", ":")) + "\n") == (
        content("Hi") in payloads
    )


def test_a_failure_from_outside_is_told_once():
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([content("Hi")], NOW)
    assert reply.fail(WorkerLost("gone")) == b'{"error":"gone"}\n'
    assert reply.fail(WorkerLost("again")) == b""
    assert reply.feed([content("late")], NOW) == b""
    assert reply.finish(NOW, TIMES) == b""
    assert str(reply.failed) == "gone"


def test_nothing_is_said_after_done():
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([content("Hi"), content("", "stop"), DONE], NOW)
    assert reply.feed([content("late"), content("late")], NOW) == b""


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=8)
SPELLINGS = st.sampled_from([encode.CHAT, encode.GENERATE])


def raw(value: object) -> bytes:
    return msgspec.json.encode(value)


def ascii_only(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def events(
    texts: list[str], key: str, encode: Callable[[object], bytes], *, vary: bool
) -> list[bytes]:
    """Chunks of one stream; if they `vary` outside their text, none can be copied."""
    choices = ({"text": text} if key == "text" else {"delta": {key: text}} for text in texts)
    return [
        encode({"created": i if vary else 7, "choices": [choice | {"finish_reason": None}]})
        for i, choice in enumerate(choices)
    ]


@given(
    TEXTS, SPELLINGS, st.sampled_from(["content", "text", "reasoning"]),
    st.sampled_from([raw, ascii_only]),
)  # fmt: skip
def test_copying_and_parsing_give_the_same_json(texts, spelling, key, write):
    copying, parsing = CountedReply(spelling, "m"), CountedReply(spelling, "m")
    copied = copying.feed(events(texts, key, write, vary=False), NOW)
    parsed = parsing.feed(events(texts, key, write, vary=True), NOW)
    assert parsing.copied == 0
    assert copying.copied + copying.parsed == len(texts)
    assert list(map(json.loads, copied.splitlines())) == list(map(json.loads, parsed.splitlines()))
    joined = "".join(
        line["message"].get("thinking", line["message"]["content"])
        if spelling is encode.CHAT
        else line.get("thinking", line["response"])
        for line in map(json.loads, copied.splitlines())
    )
    assert joined == ("".join(texts).lstrip() if key == "reasoning" else "".join(texts))


@given(TEXTS, st.lists(st.integers(0, 2000)), st.booleans())
def test_any_cut_of_the_bytes_gives_the_same_lines(texts, cuts, stream):
    payloads = [ROLE, *map(content, texts), content("", "stop"), USAGE, DONE]
    sent = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)

    def translated(places: list[int]) -> bytes:
        reader, reply = EventReader(), CountedReply(encode.CHAT, "m", stream=stream)
        fed = [reply.feed(reader.feed(sent[a:b]), NOW) for a, b in pairwise(places)]
        return b"".join(fed) + reply.finish(NOW, TIMES)

    whole = translated([0, len(sent)])
    assert translated([0, *sorted(cuts), len(sent)]) == whole
    assert whole.endswith(b"\n") == stream


WITH_IDS = ("chat-token-ids", "completions-token-ids")


@pytest.mark.parametrize("name", [act.recorded.stem for act in ACTS] + [*WITH_IDS])
@given(cuts=st.lists(st.integers(0, 16_000)), stream=st.booleans())
def test_any_cut_of_a_recorded_stream_gives_the_same_lines(name: str, cuts, stream):
    sent = (RECORDED / f"{name}.sse").read_bytes()

    def translated(places: list[int]) -> bytes:
        reader, reply = EventReader(), CountedReply(encode.GENERATE, "m", stream=stream)
        fed = [reply.feed(reader.feed(sent[a:b]), NOW) for a, b in pairwise(places)]
        return b"".join(fed) + reply.finish(NOW, TIMES)

    places = sorted(min(cut, len(sent)) for cut in cuts)
    assert translated([0, *places, len(sent)]) == translated([0, len(sent)])


@pytest.mark.parametrize("name", WITH_IDS)
def test_the_context_is_every_token_the_engine_told(name: str):
    reader, reply = EventReader(), CountedReply(encode.GENERATE, "m")
    payloads = reader.feed((RECORDED / f"{name}.sse").read_bytes())
    out = reply.feed(payloads, NOW) + reply.finish(NOW, TIMES)
    told: list[int] = []
    for event in map(json.loads, payloads[:-1]):
        told += event.get("prompt_token_ids") or []
        for choice in event["choices"]:
            told += (choice.get("prompt_token_ids") or []) + (choice.get("token_ids") or [])
    assert json.loads(out.splitlines()[-1])["context"] == told
    assert reply.copied >= 5


@given(st.lists(st.binary() | st.sampled_from([ROLE, content("x"), USAGE, DONE, b"{}", b"[]"])))
def test_no_event_raises_and_there_is_exactly_one_end(payloads):
    reply = CountedReply(encode.CHAT, "m")
    out = reply.feed(payloads, NOW) + reply.finish(NOW, TIMES)
    assert (reply.failed is None) == (b'"done":true' in out)


def reasoning(text: str) -> bytes:
    return chunk({"reasoning": text})


def test_blank_lines_around_a_thought_are_dropped():
    reply = CountedReply(encode.CHAT, "test")
    out = answer(
        reply, ROLE, reasoning("\n"), reasoning("\n"), reasoning(" hm"), reasoning("\n"),
        content("\n"), content("\n"), content("\nHi"), content("\n"), content("", "stop"),
        USAGE, DONE,
    )  # fmt: skip
    thought = said('"content":"","thinking":"hm"') + said('"content":"","thinking":"\\n"')
    assert out == thought + said('"content":"Hi"') + said('"content":"\\n"') + LAST


def test_blanks_after_a_thought_nobody_wanted_are_dropped_too():
    reply = CountedReply(encode.CHAT, "test", thinking=False)
    out = answer(reply, ROLE, reasoning("hm"), content("\n\n"), content("Hi"), content("", "stop"))
    assert out.startswith(said('"content":"Hi"'))


def test_blanks_before_an_answer_without_a_thought_are_the_models_own():
    reply = CountedReply(encode.CHAT, "test")
    assert reply.feed([content("\n"), content(" Hi")], NOW).decode() == said(
        '"content":"\\n"'
    ) + said('"content":" Hi"')


def with_ids(text: str, *ids: int, finish: str | None = None) -> bytes:
    """A chunk that tells the token ids of its text, as is asked for generate."""
    listed = b'"token_ids":[%b]' % ",".join(map(str, ids)).encode()
    return content(text, finish).replace(b'"token_ids":null', listed)


def chunk_with(fields: dict[str, object], payload: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(payload) | fields)


def test_the_tokens_of_prompt_and_answer_are_the_context_of_the_last_line():
    reply = CountedReply(encode.GENERATE, "test")
    first = chunk_with({"prompt_token_ids": [1, 2]}, ROLE)
    words = [with_ids(f" word{i}", i) for i in range(10, 20)]
    out = answer(reply, first, *words, with_ids("", 20, 21), with_ids("", 0, finish="stop"), DONE)
    assert (reply.copied, reply.parsed) == (9, 5), "ids do not keep a word from being copied"
    last = json.loads(out.splitlines()[-1])
    assert last["context"] == [1, 2, *range(10, 22), 0]
    assert list(last)[3:6] == ["done", "done_reason", "context"]
    assert "".join(json.loads(line)["response"] for line in out.splitlines()) == "".join(
        f" word{i}" for i in range(10, 20)
    )


def test_the_completion_route_tells_the_prompts_tokens_with_its_first_text():
    reply = CountedReply(encode.GENERATE, "test", stream=False)
    choice = {"text": "a", "finish_reason": None, "token_ids": [3], "prompt_token_ids": [1, 2]}
    rest = choice | {"token_ids": [4], "prompt_token_ids": None, "finish_reason": "stop"}
    events = [msgspec.json.encode({"choices": [one]}) for one in (choice, choice, rest)]
    assert json.loads(answer(reply, *events, DONE))["context"] == [1, 2, 3, 1, 2, 3, 4]
    assert reply.copied == 0


def test_what_nobody_asked_for_is_not_in_the_context():
    reply = CountedReply(encode.GENERATE, "test", muted=True)
    first = chunk_with({"prompt_token_ids": [1, 2]}, ROLE)
    out = answer(reply, first, with_ids("x", 9, finish="length"), DONE)
    assert json.loads(out)["context"] == [1, 2]


@pytest.mark.parametrize("odd", [b'[7,"x"]', b"[7],[8]", b"[-7]"])
def test_ids_that_are_none_are_not_copied(odd):
    reply = CountedReply(encode.GENERATE, "test")
    plain = with_ids("a", 7)
    reply.feed([plain, plain.replace(b"[7]", odd)], NOW)
    assert reply.copied == 0


def test_a_list_of_ids_twice_in_an_event_is_not_learned():
    twice = with_ids("a", 7).replace(b'"created":1', b'"x":{"token_ids":[1]},"created":1')
    moved = twice.replace(b'"model":"served"', b'"model":"a"')
    reply = CountedReply(encode.GENERATE, "test")
    out = reply.feed([moved, moved.replace(b'"a"},', b'"b"},')], NOW)
    assert out.count(b"\n") == 2


def test_plain_words_are_copied():
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([ROLE, *(content(f" word{i}\n") for i in range(100))], NOW)
    assert (reply.copied, reply.parsed) == (99, 2)


def test_a_quote_is_parsed_and_does_not_end_the_copying():
    reply = CountedReply(encode.CHAT, "test")
    out = reply.feed([content("a"), content('"'), content("b")], NOW).decode()
    assert out == said('"content":"a"') + said('"content":"\\""') + said('"content":"b"')
    assert (reply.copied, reply.parsed) == (1, 2)


def test_a_text_that_ends_in_a_backslash_is_whole():
    reply = CountedReply(encode.CHAT, "test")
    out = reply.feed([content("a"), content("\\"), content("b")], NOW).decode()
    assert out == said('"content":"a"') + said('"content":"\\\\"') + said('"content":"b"')


def test_an_escape_that_swallows_the_closing_quote_is_not_copied():
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([content("a"), content("X").replace(b'"X"', b'"\\"')], NOW)
    assert isinstance(reply.failed, EngineRefused)


def test_a_key_that_looks_like_the_text_is_not_learned():
    decoy = b'{"note":{"content":"no"},"choices":[{"delta":{"content":"%b"}}]}'
    reply = CountedReply(encode.CHAT, "test")
    out = reply.feed([decoy % b"a", decoy % b"b"], NOW).decode()
    assert out == said('"content":"a"') + said('"content":"b"')
    assert reply.copied == 0


@pytest.mark.parametrize(
    "more",
    [b'"usage":{"prompt_tokens":3}', b'"metrics":{}'],
)
def test_a_chunk_that_says_more_than_its_text_is_not_learned(more):
    payload = b'{"choices":[{"delta":{"content":"a"}}],%b}' % more
    reply = CountedReply(encode.CHAT, "test")
    reply.feed([payload] * 3, NOW)
    assert reply.copied == 0


def test_an_odd_spelling_is_parsed():
    reply = CountedReply(encode.CHAT, "test")
    out = reply.feed([b'{"choices": [ {"delta": {"content" : "a"} } ] }'] * 2, NOW).decode()
    assert out == said('"content":"a"') * 2
    assert (reply.copied, reply.parsed) == (0, 2)


@pytest.mark.case("F1")
@pytest.mark.parametrize("spelling", [encode.CHAT, encode.GENERATE])
@pytest.mark.parametrize(
    ("truncated", "keys"),
    [
        (encode.Truncated(), []),
        (encode.Truncated(messages=4), ["truncated_messages"]),
        (encode.Truncated(tokens=4), ["truncated_tokens"]),
    ],
)
def test_the_last_line_alone_says_what_was_dropped(spelling, truncated, keys):
    reply = CountedReply(spelling, "test", truncated=truncated)
    told = [
        json.loads(line) for line in answer(reply, content("x", "stop"), USAGE, DONE).splitlines()
    ]
    assert [[key for key in line if key.startswith("truncated")] for line in told] == [[], keys]
    assert all(told[-1][key] == 4 for key in keys)
