"""The clients: so many streams at once, every token's delay taken from the time it carries.

    python -m tests.bench.load ADDRESS ROUTE MODEL STREAMS SECONDS

Says one JSON object a line: `begun` when every stream has had a token, and `done` so many SECONDS
later, each with the tokens so far and the time (s); `done` also with the delays of those between.
Then it leaves, in the middle of every answer.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import time

from tests.bench.asking import PATIENCE, connect, quantiles, request, say

ENDLESS = 1 << 22  # tokens
STAMPS = re.compile(rb"t(\d{19})")
TAIL = 19  # bytes: all of a stamp but its last digit, which the next read may bring


class Client:
    def __init__(self, address: str) -> None:
        self.sock: socket.socket = connect(address)
        self.tail = b""
        self.began = False


class Load:
    def __init__(self, address: str, asked: bytes, streams: int) -> None:
        self.poll = selectors.DefaultSelector()
        self.tokens = 0
        self.delays: list[int] = []
        self.waiting = streams
        for _ in range(streams):
            client = Client(address)
            client.sock.sendall(asked)
            client.sock.setblocking(False)
            self.poll.register(client.sock, selectors.EVENT_READ, client)

    def run(self, seconds: float) -> None:
        while self.waiting:  # to be measured: the tokens, not what it costs to begin
            self.listen()
        self.delays.clear()
        say("begun", tokens=self.tokens)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.listen()
        say("done", tokens=self.tokens, **quantiles(self.delays))

    def listen(self) -> None:
        ready = self.poll.select(PATIENCE)
        if not ready:
            raise SystemExit(f"nothing came for {PATIENCE} s")
        for key, _ in ready:
            self.read(key.data)

    def read(self, client: Client) -> None:
        data = client.sock.recv(1 << 18)
        now = time.monotonic_ns()
        if not data:
            raise SystemExit(f"a stream broke off: {client.tail!r}")
        stamps = STAMPS.findall(client.tail + data)
        client.tail = (client.tail + data)[-TAIL:]
        self.tokens += len(stamps)
        self.delays += [now - int(stamp) for stamp in stamps]
        if stamps and not client.began:
            client.began = True
            self.waiting -= 1


if __name__ == "__main__":
    address, route, model, streams, seconds = sys.argv[1:]
    asked = request(route, model, ENDLESS, keep=False)
    Load(address, asked, int(streams)).run(float(seconds))
