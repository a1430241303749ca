"""The client to engines, on real Unix sockets."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.fakes.raw_engine import CHUNKED_HEAD, Exchange, Script, raw_engine
from vllamad.errors import WorkerLost
from vllamad.http.engine_client import EngineResponse, client_for, post_to_engine


async def ask(path: Path, content: bytes = b"{}") -> EngineResponse:
    with trio.fail_after(20):
        return await post_to_engine(str(path), "/v1/chat/completions", content)


def saying(*pieces: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.say(piece)

    return script


async def read(answer: EngineResponse) -> bytes:
    with closing(answer), trio.fail_after(20):
        return await answer.read()


async def test_the_request_reaches_the_engine_whole(tmp_path: Path) -> None:
    content = b'{"x":"' + b"y" * 3_000_000 + b'"}'
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD, b"0\r\n\r\n")) as exchanges:
        await read(await ask(tmp_path / "s", content))
    head, _, body = exchanges[0].request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert body == content


async def test_a_chunked_answer_is_decoded(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")):
        answer = await ask(tmp_path / "s")
        assert answer.status == 200
        assert await read(answer) == b"abc"


async def test_a_counted_answer_is_read_to_its_count(tmp_path: Path) -> None:
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n"
    async with raw_engine(tmp_path / "s", saying(head, b"oo", b"ps!")):
        answer = await ask(tmp_path / "s")
        assert answer.status == 400
        assert await read(answer) == b"oops!"


async def test_a_head_may_be_written_in_any_case_and_with_numbers(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-B3-TraceId: 7\r\n\r\n"
    async with raw_engine(tmp_path / "s", saying(head, b"abc")):
        assert await read(await ask(tmp_path / "s")) == b"abc"


async def test_an_answer_is_read_piece_by_piece(tmp_path: Path) -> None:
    script = saying(CHUNKED_HEAD + b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n")
    async with raw_engine(tmp_path / "s", script):
        with closing(await ask(tmp_path / "s")) as answer, trio.fail_after(20):
            pieces = [await answer.more(), await answer.more(), await answer.more()]
    assert b"".join(pieces) == b"abc"
    assert pieces[-1] == b""


async def test_of_a_long_answer_no_more_is_read_than_wanted(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD, b"4\r\nabcd\r\n")):
        with closing(await ask(tmp_path / "s")) as answer:
            assert await answer.read(3) == b"abc"


async def test_an_answer_without_framing_ends_with_its_connection(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def")):
        assert await read(await ask(tmp_path / "s")) == b"abcdef"


async def test_what_came_with_the_head_is_kept(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD + b"3\r\nabc\r\n2")):
        with closing(await ask(tmp_path / "s")) as answer:
            assert answer.early == b"3\r\nabc\r\n2"


async def test_an_engine_that_dies_mid_answer_is_lost(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD + b"3\r\nabc\r\n")):
        answer = await ask(tmp_path / "s")
        with pytest.raises(WorkerLost, match="in the middle of its answer"):
            await read(answer)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "before it answered"),
        (b"HTTP/1.1 200", "before it answered"),
        (b"220 ready\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "malformed"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", "malformed"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "malformed"),
    ],
)
async def test_an_answer_without_a_proper_head_is_a_lost_engine(
    tmp_path: Path, said: bytes, why: str
) -> None:
    async with raw_engine(tmp_path / "s", saying(said)):
        with pytest.raises(WorkerLost, match=why):
            await ask(tmp_path / "s")


async def test_broken_chunks_are_a_lost_engine(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", saying(CHUNKED_HEAD + b"zz\r\n")):
        answer = await ask(tmp_path / "s")
        with pytest.raises(WorkerLost, match="malformed"):
            await read(answer)


async def test_an_engine_that_is_not_there_is_lost(tmp_path: Path) -> None:
    with pytest.raises(WorkerLost, match="cannot reach the engine: No such file"):
        await ask(tmp_path / "nobody")


async def test_closing_the_answer_closes_the_connection_to_the_engine(tmp_path: Path) -> None:
    async def forever(exchange: Exchange) -> None:
        await exchange.say(CHUNKED_HEAD)
        await exchange.until_gone()

    async with raw_engine(tmp_path / "s", forever) as exchanges:
        (await ask(tmp_path / "s")).close()
        with trio.fail_after(20):
            await exchanges[0].gone.wait()


async def test_giving_up_while_the_engine_thinks_closes_the_connection(tmp_path: Path) -> None:
    heard = trio.Event()

    async def silent(exchange: Exchange) -> None:
        heard.set()
        await exchange.until_gone()

    async with raw_engine(tmp_path / "s", silent) as exchanges:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, tmp_path / "s")
            with trio.fail_after(20):
                await heard.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            await exchanges[0].gone.wait()


async def test_small_questions_use_the_stock_client(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with raw_engine(tmp_path / "s", saying(answer)), client_for(str(tmp_path / "s")) as http:
        assert (await http.get("/health")).content == b"ok"
