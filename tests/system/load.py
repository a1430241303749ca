"""Clients that never rest: what becomes of each request while the daemon is restarted or killed.

`python -m tests.system.load --clients 50 --streams 5`, in the network of a box. It says when all
clients are at work, ends at the end of its standard input and prints one JSON object. Every request
has a connection of its own, so each of them meets the listening socket.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

ASK = b"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
PAUSE = 0.02  # between two requests of one client; without it a small machine does nothing else


@dataclass(kw_only=True)
class Tally:
    """What became of the requests so far."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    slowest: float = 0.0  # seconds until the latest good answer

    def count(self, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        if outcome == "answered":
            self.slowest = max(self.slowest, seconds)


def chat(model: str) -> bytes:
    """A request for an answer that is streamed."""
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": model, "messages": messages}).encode()
    head = "POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    return (
        f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def client(port: int, request: bytes, whole: Callable[[bytes], bool], tally: Tally) -> None:
    """Ask again and again, until cancelled; one that is cancelled does not count."""
    while True:
        began = time.monotonic()
        outcome = await asked(port, request, whole)
        tally.count(outcome, time.monotonic() - began)
        await trio.sleep(PAUSE)


async def asked(port: int, request: bytes, whole: Callable[[bytes], bool]) -> str:
    """One request; the outcome in a word."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port, happy_eyeballs_delay=math.inf)
    except OSError:
        return "refused"
    answer = bytearray()
    async with stream:
        try:
            await stream.send_all(request)
            async for piece in stream:
                answer += piece
        except trio.BrokenResourceError:
            return "reset"
    if not answer:
        return "closed"
    if not answer.startswith(b"HTTP/1.1 200"):
        head, _, body = answer.partition(b"\r\n\r\n")
        return f"{head[9:12].decode()} {body[:200].decode(errors='replace')}"
    return "answered" if whole(bytes(answer)) else "cut"


async def load(port: int, clients: int, streams: int, model: str) -> Tally:
    tally = Tally()
    async with trio.open_nursery() as nursery:
        for _ in range(clients - streams):
            nursery.start_soon(client, port, ASK, lambda answer: b'"version"' in answer, tally)
        for _ in range(streams):
            nursery.start_soon(client, port, chat(model), lambda a: b'"done":true' in a, tally)
        while tally.outcomes.total() < clients:  # noqa: ASYNC110  # no client knows of the others
            await trio.sleep(PAUSE)
        print("asking", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--streams", type=int, default=0)
    parser.add_argument("--model", default="a")
    asked = parser.parse_args()
    tally = trio.run(load, asked.port, asked.clients, asked.streams, asked.model)
    print(json.dumps({"outcomes": tally.outcomes, "slowest": round(tally.slowest, 3)}))


if __name__ == "__main__":
    main()
