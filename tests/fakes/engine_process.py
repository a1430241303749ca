"""The scripted engine as a process, and a client of its socket."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.fakes import ENGINE
from vllamad.host.processes.process_group import Launch, ProcessGroup, spawn

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@asynccontextmanager
async def running_engine(
    folder: Path, **scenario: object
) -> AsyncGenerator[tuple[ProcessGroup, httpx.AsyncClient]]:
    uds = folder / "w.sock"
    launch = Launch(
        argv=(
            sys.executable,
            "-I",
            ENGINE,
            "--uds",
            str(uds),
            "--served-model-name",
            "smollm2:135m",
        ),
        env={"FAKE_ENGINE": json.dumps(scenario)},
        cwd=folder,
        log_path=folder / "log",
    )
    transport = httpx.AsyncHTTPTransport(uds=str(uds))
    with trio.fail_after(20):
        async with (
            spawn(launch, term_timeout=0.3, kill_timeout=5) as group,
            httpx.AsyncClient(transport=transport, base_url="http://engine") as client,
        ):
            yield group, client


async def read_stream(
    client: httpx.AsyncClient, path: str = "chat/completions", **more: object
) -> bytes:
    body = {"stream": True, "messages": QUESTION, "prompt": "2 + 2", **more}
    async with client.stream("POST", f"/v1/{path}", json=body) as response:
        assert response.status_code == 200
        return await response.aread()
