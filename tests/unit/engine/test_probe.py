"""What the probes believe of an engine, on a real socket that says what a test wants."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fakes.engine_process import read_stream, running_engine
from tests.fakes.raw_engine import (
    Exchange,
    engine_answering,
    path_of,
    raw_engine,
)
from vllamad.engine import probe
from vllamad.errors import LoadFailed
from vllamad.http.engine_client import client_for

METRICS = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="a"} 100.0
vllm:prompt_tokens_cached_total{engine="0",model_name="a"} 50.0
vllm:generation_tokens_total{engine="0",model_name="a"} 1e+03
"""


async def silent(exchange: Exchange) -> None:
    await exchange.until_gone()


async def ready(path: Path, *, pooling: bool = False) -> int:
    with trio.fail_after(5):
        return await probe.until_ready(path, model="a", pooling=pooling)


async def test_ready_is_health_then_one_token_and_gives_the_context_length(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", engine_answering({})) as exchanges:
        assert await ready(tmp_path / "s") == 4096
    assert [path_of(one) for one in exchanges] == ["/health", "/v1/completions", "/v1/models"]
    body = json.loads(exchanges[1].request.partition(b"\r\n\r\n")[2])
    assert (body["model"], body["max_tokens"]) == ("a", 1)


async def test_a_pooling_model_is_asked_on_the_route_that_all_of_them_have(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", engine_answering({})) as exchanges:
        await ready(tmp_path / "s", pooling=True)
    assert path_of(exchanges[1]) == "/pooling"


async def test_an_engine_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    lengths: list[int] = []

    async def wait() -> None:
        lengths.append(await ready(tmp_path / "s"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        async with raw_engine(tmp_path / "s", engine_answering({})):
            with trio.fail_after(5):
                while not lengths:  # noqa: ASYNC110 - it looks from time to time
                    await trio.sleep(0.01)


async def test_an_engine_that_is_not_healthy_yet_is_not_asked_for_a_token(tmp_path: Path) -> None:
    asked: list[str] = []

    async def script(exchange: Exchange) -> None:
        asked.append(path_of(exchange))
        await (
            engine_answering({"/health": (503, b"")}) if len(asked) < 3 else engine_answering({})
        )(exchange)

    async with raw_engine(tmp_path / "s", script):
        await ready(tmp_path / "s")
    assert asked == ["/health"] * 3 + ["/v1/completions", "/v1/models"]


async def test_health_alone_is_not_ready(tmp_path: Path) -> None:
    asked, token = trio.Event(), trio.Event()

    async def script(exchange: Exchange) -> None:
        if path_of(exchange) == "/v1/completions":
            asked.set()
            await token.wait()
        await engine_answering({})(exchange)

    over = trio.Event()

    async def wait() -> None:
        await ready(tmp_path / "s")
        over.set()

    async with raw_engine(tmp_path / "s", script), trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        with trio.fail_after(5):
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not over.is_set()
            token.set()
            await over.wait()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":{"message":"EngineCore encountered an issue.","code":500}}', "EngineCore enc"),
        (b"Internal Server Error", "Internal Server Error"),
        (b"x" * 9_000, "x" * 300),
    ],
)
async def test_a_refused_first_request_is_a_failed_load_with_the_engines_words(
    tmp_path: Path, body: bytes, reason: str
) -> None:
    async with raw_engine(tmp_path / "s", engine_answering({"/v1/completions": (500, body)})):
        with pytest.raises(LoadFailed, match=f"refused its first request: {reason}") as caught:
            await ready(tmp_path / "s")
    assert len(caught.value.message) < 350


async def test_an_engine_that_dies_of_its_first_request_never_was_ready(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", engine_answering({"/v1/completions": None})):
        with pytest.raises(LoadFailed, match="died of its first request"):
            await ready(tmp_path / "s")


@pytest.mark.parametrize(
    "said",
    [(200, b'{"data":[]}'), (200, b'{"data":[{"id":"a"}]}'), (200, b"what?"), (404, b"{}"), None],
)
async def test_an_engine_that_does_not_tell_its_context_is_ready_all_the_same(
    tmp_path: Path, said: tuple[int, bytes] | None
) -> None:
    async with raw_engine(tmp_path / "s", engine_answering({"/v1/models": said})):
        assert await ready(tmp_path / "s") == 0


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
async def test_alive_is_what_health_says(tmp_path: Path, status: int, well: bool) -> None:
    script = engine_answering({"/health": (status, b"")})
    async with raw_engine(tmp_path / "s", script), client_for(str(tmp_path / "s")) as client:
        assert await probe.alive(client, limit=5) is well


async def test_silence_is_not_alive_and_no_progress_known(tmp_path: Path) -> None:
    async with raw_engine(tmp_path / "s", silent), client_for(str(tmp_path / "s")) as client:
        assert not await probe.alive(client, limit=0.05)
        assert await probe.progress(client, limit=0.05) is None


async def test_nobody_is_not_alive_and_no_progress_known(tmp_path: Path) -> None:
    async with client_for(str(tmp_path / "s")) as client:
        assert not await probe.alive(client, limit=5)
        assert await probe.progress(client, limit=5) is None


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        (METRICS, probe.EngineProgress(running=2, tokens=1100, cache=0.25)),
        (b"", probe.EngineProgress(running=0, tokens=0, cache=0)),
        (b"vllm:num_requests_running many", None),
    ],
)
async def test_progress_is_read_from_the_metrics(
    tmp_path: Path, said: bytes, progress: probe.EngineProgress | None
) -> None:
    script = engine_answering({"/metrics": (200, said)})
    async with raw_engine(tmp_path / "s", script), client_for(str(tmp_path / "s")) as client:
        assert await probe.progress(client, limit=5) == progress


@pytest.mark.integration
async def test_a_process_that_loads_is_waited_for(tmp_path: Path) -> None:
    async with running_engine(tmp_path, load=0.5):
        began = trio.current_time()
        assert await probe.until_ready(tmp_path / "w.sock", model="smollm2:135m", pooling=False)
        assert trio.current_time() - began > 0.3


@pytest.mark.integration
async def test_a_process_that_refuses_to_generate_is_a_failed_load(tmp_path: Path) -> None:
    async with running_engine(tmp_path, status=503):
        with pytest.raises(LoadFailed, match="The engine is currently busy"):
            await probe.until_ready(tmp_path / "w.sock", model="smollm2:135m", pooling=False)


@pytest.mark.integration
async def test_a_stalled_stream_shows_as_running_without_progress(tmp_path: Path) -> None:
    async with (
        running_engine(tmp_path, stall_after=3) as (_, client),
        trio.open_nursery() as nursery,
    ):
        await probe.until_ready(tmp_path / "w.sock", model="smollm2:135m", pooling=False)
        before = await probe.progress(client, limit=5)
        assert before is not None
        assert not before.running
        nursery.start_soon(read_stream, client)
        stalled = before
        while stalled.tokens < before.tokens + 3:
            stalled = await probe.progress(client, limit=5) or stalled
        assert stalled.running == 1
        assert await probe.progress(client, limit=5) == stalled
        assert await probe.alive(client, limit=5), "health knows nothing of it"
        nursery.cancel_scope.cancel()


@pytest.mark.integration
async def test_a_process_that_was_killed_is_not_alive(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (group, client):
        look = partial(probe.alive, client, limit=5)
        await probe.until_ready(tmp_path / "w.sock", model="smollm2:135m", pooling=False)
        assert await look()
        await group.terminate()
        await group.exited()
        assert not await look()
