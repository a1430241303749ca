"""What takes long by its nature, and so goes on beside all other tests: four clients that wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.hostile_clients import connected, post
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until

Waits = dict[str, Future[object]]
CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}


@contextmanager
def waiting(home: Path) -> Generator[Waits]:
    """Each client's work under its name; leaving the block does not wait for it."""
    scenarios = {"a": {"tokens": 670, "rate": 10}, "b": {"tokens": 10**7}}
    config = fake_config(scenarios=scenarios, more="[server]\ndrain_timeout = 1")
    jobs: list[Callable[[Daemon], object]] = [long_stream, slow_head, stalled_body, never_reads]
    with ThreadPoolExecutor() as pool, daemon(fake_home(home), config=config) as one:
        yield {job.__name__: pool.submit(job, one) for job in jobs}


def long_stream(one: Daemon) -> tuple[float, bool]:
    began = time.monotonic()
    with one.streaming("a", options={"num_predict": 100_000}) as response:
        *_, last = response.iter_lines()
    return time.monotonic() - began, json.loads(last)["done"]


def slow_head(one: Daemon) -> tuple[float, bytes]:
    """Say one header after the other, half a second apart, until it is enough."""
    began = time.monotonic()
    with connected(("127.0.0.1", one.port), 0.5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        heard = b""
        while time.monotonic() < began + 30:
            try:
                heard = sock.recv(100)
                break
            except TimeoutError:
                sock.sendall(b"X: y\r\n")
    return time.monotonic() - began, heard


def stalled_body(one: Daemon) -> tuple[float, bytes]:
    began = time.monotonic()
    with connected(("127.0.0.1", one.port), 30) as sock:
        sock.sendall(post("/api/chat", CHAT)[:-5])
        heard = sock.recv(100)
    return time.monotonic() - began, heard


def never_reads(one: Daemon) -> float:
    """The seconds until its lease is free."""
    with connected(("127.0.0.1", one.port), 60) as sock:
        sock.sendall(post("/api/chat", CHAT | {"model": "b"}))
        until(lambda: leases_of(one, "b:latest") == 1)
        return until(lambda: leases_of(one, "b:latest") == 0)


def leases_of(one: Daemon, model: str) -> int:
    return sum(worker["leases"] for worker in one.workers() if worker["model"] == model)
