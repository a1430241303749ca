"""What both kinds of clients share: one question as bytes, and how they tell what they saw."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence

PATIENCE = 30  # seconds without a byte after which something is wrong


def connect(address: str) -> socket.socket:
    """To a port on loopback, or the path of a Unix socket."""
    if address.isdigit():
        return socket.create_connection(("127.0.0.1", int(address)), PATIENCE)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def request(route: str, model: str, tokens: int, *, keep: bool) -> bytes:
    """A question that is answered in `tokens` tokens; `keep` the connection afterwards or not."""
    ollama, openai = {"options": {"num_predict": tokens}}, {"max_tokens": tokens}
    limit = ollama if route == "/api/chat" else openai
    messages = [{"role": "user", "content": "?"}]
    body = {"model": model, "messages": messages, "stream": True} | limit
    content = json.dumps(body).encode()
    head = (
        f"POST {route} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\nconnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + content


def say(mark: str, **more: float) -> None:
    print(json.dumps({"mark": mark, "time": time.monotonic(), **more}), flush=True)


def quantiles(delays: Sequence[int]) -> dict[str, float]:
    """Median and 99th part of a hundred, milliseconds; `delays` are nanoseconds."""
    ranked = sorted(delays) or [0]
    last = len(ranked) - 1
    return {"p50": ranked[round(0.5 * last)] / 1e6, "p99": ranked[round(0.99 * last)] / 1e6}
