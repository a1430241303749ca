"""Probes one engine over its Unix socket: readiness, liveness, progress.

The states of a worker and restarts are not known here.
"""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import trio

from vllamad.errors import LoadFailed
from vllamad.http.engine_client import client_for

_SOUND_RATE = 16_000  # samples a second: the rate that models expect
_PAUSE = 0.2  # seconds between two looks while it starts: far below any load time


class _Card(msgspec.Struct):
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Card] = []


class _ErrorMessage(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _ErrorMessage


class EngineProgress(NamedTuple):
    """Counters of an engine; two equal ones in a row, with requests running, mean it is stuck."""

    running: float
    tokens: float
    cache: float  # share in use: it grows while a long prompt is read, before any token counts


async def until_ready(
    endpoint: Path, *, model: str, pooling: bool, transcribes: bool = False
) -> int:
    """Wait for /health and one response; return the context length the engine uses.

    /health alone does not suffice: a server can be up and die of its first request (an engine
    whose JIT may not write executable memory does). Raises LoadFailed when that request is refused.
    """
    async with client_for(str(endpoint)) as client:
        while not await _healthy(client):  # noqa: ASYNC110 - it sends no signal when it is up
            await trio.sleep(_PAUSE)
        request = _silence(client, model) if transcribes else _words(client, model, pooling=pooling)
        await _answered(client, request)
        return await _context_length(client)


async def alive(client: httpx.AsyncClient, *, limit: float) -> bool:
    """Whether /health returns 200 within `limit` seconds."""
    with trio.move_on_after(limit):
        return await _healthy(client)
    return False


async def progress(client: httpx.AsyncClient, *, limit: float) -> EngineProgress | None:
    """The engine's counters, or None if /metrics does not return them in time."""
    with trio.move_on_after(limit):
        try:
            lines = (await client.get("/metrics")).text.splitlines()
            return EngineProgress(
                running=_total(lines, "vllm:num_requests_running"),
                tokens=_total(lines, "vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
                cache=_total(lines, "vllm:kv_cache_usage_perc"),
            )
        except (httpx.TransportError, ValueError):
            pass
    return None


def _total(lines: list[str], *names: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names))


async def _healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).status_code == 200
    except httpx.TransportError:  # no socket yet, no listener yet, or just gone
        return False


def _words(client: httpx.AsyncClient, model: str, *, pooling: bool) -> httpx.Request:
    if pooling:
        # A model that ranks has no /v1/embeddings.
        path, body = "/pooling", {"model": model, "input": "ready?"}
    else:
        path, body = "/v1/completions", {"model": model, "prompt": "ready?", "max_tokens": 1}
    return client.build_request("POST", path, json=body, timeout=None)  # the caller limits the load


def _silence(client: httpx.AsyncClient, model: str) -> httpx.Request:
    """A request with a second of silence: a model that only transcribes has no route for text."""
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_SOUND_RATE)
        file.writeframes(bytes(2 * _SOUND_RATE))
    return client.build_request(
        "POST",
        "/v1/audio/transcriptions",
        data={"model": model, "language": "en", "max_completion_tokens": "1"},
        files={"file": ("ready.wav", content.getvalue(), "audio/wav")},
        timeout=None,
    )


async def _answered(client: httpx.AsyncClient, request: httpx.Request) -> None:
    try:
        answer = await client.send(request)
    except httpx.TransportError as error:
        raise LoadFailed(f"the engine died of its first request: {error}") from error
    if answer.status_code != 200:
        raise LoadFailed(f"the engine refused its first request: {_message(answer)[:300]}")


def _message(answer: httpx.Response) -> str:
    try:
        return msgspec.json.decode(answer.content, type=_Refusal).error.message
    except msgspec.DecodeError:
        return answer.text


async def _context_length(client: httpx.AsyncClient) -> int:
    try:
        answer = await client.get("/v1/models")
        cards = msgspec.json.decode(answer.content, type=_Models).data
    except (httpx.TransportError, msgspec.DecodeError):
        return 0
    return (cards[0].max_model_len or 0) if cards else 0
