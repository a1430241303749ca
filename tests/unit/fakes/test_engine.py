"""The fake engine keeps its word: it speaks like vLLM and misbehaves exactly as it was told."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.fakes.engine_process import QUESTION, read_stream, running_engine
from tests.support.paths import RECORDED
from vllamad.engine.reasons import last_meaningful_line

pytestmark = pytest.mark.integration


async def ready(client: httpx.AsyncClient) -> None:
    while True:
        try:
            await client.get("/health")
        except httpx.ConnectError:
            await trio.sleep(0.01)
        else:
            return


async def ask(client: httpx.AsyncClient, path: str, **more: object) -> httpx.Response:
    return await client.post(path, json={"messages": QUESTION, "prompt": "2 + 2", **more})


async def idle(client: httpx.AsyncClient) -> bool:
    counts = (await client.get("/metrics")).text
    return re.search(r"num_requests_running\S+ 0\.0", counts) is not None


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def shape(data: bytes) -> str:
    """Blank out what differs from one answer to the next."""
    text = re.sub(rb'(cmpl-)[0-9a-f]+|("(?:prompt_tokens|total_tokens)":)\d+', rb"\1\2", data)
    text = re.sub(rb'("created":|_ms":|"tokens_per_second":)[\d.]+', rb"\1", text)
    return text.decode().strip()


def events(data: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def said(data: bytes) -> str:
    choices = [choice for event in events(data) for choice in event["choices"]]
    return "".join(choice["delta"]["content"] for choice in choices)


async def test_a_chat_stream_is_spelled_as_recorded(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        got = await read_stream(client, stream_options={"include_usage": True})
    assert shape(got) == shape((RECORDED / "chat.sse").read_bytes())


async def test_a_completion_stream_is_spelled_as_recorded(tmp_path: Path) -> None:
    recorded = (RECORDED / "completions.sse").read_bytes()
    words = [event["choices"][0]["text"] for event in events(recorded) if event["choices"]]
    async with running_engine(tmp_path, text="x", tokens=100) as (_, client):
        await ready(client)
        options = {"stream_options": {"include_usage": True}, "max_tokens": 12}
        got = await read_stream(client, "completions", **options)
    blank = re.sub(r'"text":"[^"]*"', '"text":""', shape(recorded))
    assert len(words) == 12
    assert shape(got).replace('"text":"x"', '"text":""') == blank


@pytest.mark.parametrize("kind", ["chat", "completions"])
async def test_a_whole_answer_has_the_recorded_keys(tmp_path: Path, kind: str) -> None:
    def keys(value: Any) -> Any:
        return (
            {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None
        )

    path = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
    recorded = json.loads((RECORDED / f"{kind}.json").read_bytes())
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        got = (await ask(client, path)).json()
    assert keys(got["choices"][0]).items() <= keys(recorded["choices"][0]).items()
    assert keys(got["metrics"]) == keys(recorded["metrics"])


@pytest.mark.parametrize("path", ["responses", "messages"])
async def test_named_events_are_spelled_as_recorded(tmp_path: Path, path: str) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        assert await read_stream(client, path) == (RECORDED / f"{path}.sse").read_bytes()
        whole = await ask(client, f"/v1/{path}")
        assert whole.content == (RECORDED / f"{path}.json").read_bytes()


async def test_a_dead_core_ends_named_events_as_recorded(tmp_path: Path) -> None:
    async with running_engine(tmp_path, error_after=2) as (_, client):
        await ready(client)
        recorded = (RECORDED / "messages-engine-died.sse").read_bytes()
        assert (await read_stream(client, "messages")).split(b"\n\n")[-2] == recorded.split(
            b"\n\n"
        )[-2]
        with pytest.raises(httpx.RemoteProtocolError):
            await read_stream(client, "responses")


async def test_one_event_is_one_chunk(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        request = b'{"stream":true,"messages":[]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(request)}\r\n"
        async with await trio.open_unix_socket(str(tmp_path / "w.sock")) as raw:
            await raw.send_all(head.encode() + b"content-type: application/json\r\n\r\n" + request)
            data = b""
            while not data.endswith(b"\r\n0\r\n\r\n"):
                data += await raw.receive_some()
    body = data.partition(b"\r\n\r\n")[2]
    assert re.fullmatch(rb"([0-9a-f]+\r\ndata: [^\n]+\n\n\r\n){10}0\r\n\r\n", body)


async def test_the_routes_a_supervisor_asks_answer(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        assert (await client.get("/version")).json() == {"version": "0.32.0"}
        card = (await client.get("/v1/models")).json()["data"][0]
        assert (card["id"], card["max_model_len"]) == ("smollm2:135m", 2048)
        assert (await ask(client, "/tokenize", prompt="a b c")).json()["count"] == 3
        await ask(client, "/v1/completions", max_tokens=1)
        counts = (await client.get("/metrics")).text
        assert 'vllm:generation_tokens_total{engine="0",model_name="smollm2:135m"} 1.0' in counts


async def test_what_vllm_refuses_is_refused(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        unknown = await ask(client, "/v1/completions", model="nope")
        assert unknown.status_code == 404
        assert unknown.json()["error"]["param"] == "model"
        untyped = await client.post("/v1/completions", content="{}")
        assert untyped.status_code == 400
        assert (await client.get("/nope")).json() == {"detail": "Not Found"}


async def test_max_tokens_cuts_the_answer(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (_, client):
        await ready(client)
        data = await read_stream(client, max_tokens=2)
        assert said(data) == "The capital"
        assert events(data)[-1]["choices"][0]["finish_reason"] == "length"


async def test_until_it_is_loaded_it_refuses_connections(tmp_path: Path) -> None:
    async with running_engine(tmp_path, load=0.5) as (_, client):
        while not (tmp_path / "w.sock").exists():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")
        await ready(client)


async def test_a_failed_start_leaves_its_reason_in_the_log(tmp_path: Path) -> None:
    async with running_engine(
        tmp_path, exit=1, log=["ValueError: no room", "nanobind: leaked"]
    ) as (
        group,
        _,
    ):
        assert await group.exited() == 1
    assert last_meaningful_line((tmp_path / "log").read_text()) == "ValueError: no room"


async def test_term_ends_it_with_status_0(tmp_path: Path) -> None:
    async with running_engine(tmp_path, children=["VLLM::EngineCor"]) as (group, client):
        await ready(client)
        await group.terminate()
        assert await group.exited() == 0


async def test_a_deaf_one_with_children_and_an_orphan_is_ended_all_the_same(tmp_path: Path) -> None:
    options = {"children": ["VLLM::EngineCor", "VLLM::Worker"], "orphan": True}
    async with running_engine(tmp_path, ignore_term=True, **options) as (group, client):
        await ready(client)
        named = {"VLLM::EngineCor", "VLLM::Worker", "VLLM::Stray"}
        with trio.fail_after(30):  # each names itself once it runs
            members = dict(group.members())
            while not named < {*members.values()}:
                await trio.sleep(0.01)
                members = dict(group.members())
    assert alive(members) == []


async def test_the_death_of_the_core_silences_streams_then_ends_them_and_the_leader(
    tmp_path: Path,
) -> None:
    options = {"children": ["VLLM::EngineCor"], "kill_core_after": 2, "core_notice": 0.3}
    async with running_engine(tmp_path, **options) as (group, client):
        await ready(client)
        data = await read_stream(client)
        assert (await client.get("/health")).status_code == 503
        assert events(data)[-1] == events((RECORDED / "chat-engine-died.sse").read_bytes())[-1]
        assert await group.exited() == 0


async def test_an_error_can_come_in_the_middle(tmp_path: Path) -> None:
    async with running_engine(tmp_path, error_after=2) as (_, client):
        await ready(client)
        assert events(await read_stream(client))[-1]["error"]["code"] == 500


async def test_a_stream_can_be_cut(tmp_path: Path) -> None:
    async with running_engine(tmp_path, cut_after=2) as (_, client):
        await ready(client)
        with pytest.raises(httpx.RemoteProtocolError):
            await read_stream(client)


async def test_the_leader_can_die_in_a_stream(tmp_path: Path) -> None:
    async with running_engine(tmp_path, die_after=2) as (group, client):
        await ready(client)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await read_stream(client)
        assert await group.exited() == 1


async def test_a_stream_can_stall_and_its_request_ends_with_the_connection(tmp_path: Path) -> None:
    async with running_engine(tmp_path, stall_after=2) as (_, client):
        await ready(client)
        with trio.move_on_after(0.3) as waiting:
            await read_stream(client)
        assert waiting.cancelled_caught
        while not await idle(client):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)


async def test_bad_utf8_can_come_in_the_middle(tmp_path: Path) -> None:
    async with running_engine(tmp_path, bad_utf8_after=1) as (_, client):
        await ready(client)
        assert b'"content":"\xff"' in await read_stream(client)


async def test_a_refusal_is_an_error_object(tmp_path: Path) -> None:
    async with running_engine(tmp_path, status=503) as (_, client):
        await ready(client)
        response = await ask(client, "/v1/chat/completions")
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "Service Unavailable"


async def test_an_answer_can_be_late_and_slow(tmp_path: Path) -> None:
    async with running_engine(tmp_path, late=0.2, rate=50, tokens=10) as (_, client):
        await ready(client)
        begun = trio.current_time()
        await read_stream(client)
        assert trio.current_time() - begun >= 0.2 + 10 / 50


async def test_a_recorded_stream_can_be_replayed(tmp_path: Path) -> None:
    path = RECORDED / "chat-logprobs.sse"
    async with running_engine(tmp_path, replay=str(path)) as (_, client):
        await ready(client)
        assert (await read_stream(client)).strip() == path.read_bytes().strip()


async def test_many_streams_share_it_flat_out(tmp_path: Path) -> None:
    async with running_engine(tmp_path, tokens=2000) as (_, client):
        await ready(client)
        done: list[int] = []

        async def one() -> None:
            async with await trio.open_unix_socket(str(tmp_path / "w.sock")) as raw:
                body = b'{"stream":true,"messages":[],"max_tokens":5000}'
                await raw.send_all(
                    b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(body), body)
                )
                size, last = 0, b""
                while not last.endswith(b"0\r\n\r\n"):
                    piece = bytes(await raw.receive_some(1 << 16))
                    size, last = size + piece.count(b"data: "), (last + piece)[-16:]
                done.append(size)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
        assert done == [2000 + 3] * 50


async def test_stamped_tokens_tell_the_time_of_their_making(tmp_path: Path) -> None:
    began = time.monotonic_ns()
    async with running_engine(tmp_path, stamped=True, text="x", tokens=1000, rate=50.0) as (
        _,
        client,
    ):
        await ready(client)
        got = said(await read_stream(client, max_tokens=4))
    stamps = [int(stamp) for stamp in re.findall(r"t(\d{19})", got)]
    assert len(stamps) == 3  # the last token comes with the reason to stop
    # How far they lie apart is for a quiet machine to tell: what is late is made up for at once.
    assert all(earlier < later for earlier, later in itertools.pairwise([began, *stamps]))
    assert stamps[-1] < time.monotonic_ns()


async def test_stamped_tokens_come_many_at_a_time_where_nothing_holds_them(tmp_path: Path) -> None:
    async with running_engine(tmp_path, stamped=True, text="x", tokens=1000) as (_, client):
        await ready(client)
        got = said(await read_stream(client, max_tokens=101))
    stamps = re.findall(r"t(\d{19})", got)
    assert len(stamps) == 100
    assert len(set(stamps)) == 7  # 16 a write
