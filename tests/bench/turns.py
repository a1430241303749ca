"""The clients: each asks for one token and, once answered, asks again on the same connection.

    python -m tests.bench.turns ADDRESS ROUTE MODEL CLIENTS SECONDS

Says one JSON object a line: `begun` after a warm-up and `done` at the end, each with the requests
answered so far and the time (s); `done` also with the time to the first token.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

from tests.bench.asking import PATIENCE, connect, quantiles, request, say

WARM_UP = 20  # requests of each client
TOKEN = b'"content":"x"'
END = b"0\r\n\r\n"  # of the last chunk; nothing before it ends so


class Client:
    def __init__(self, address: str) -> None:
        self.sock: socket.socket = connect(address)
        self.sent = 0
        self.heard = b""


class Turns:
    def __init__(self, address: str, asked: bytes, clients: int) -> None:
        self.poll = selectors.DefaultSelector()
        self.asked = asked
        self.answered = 0
        self.first: list[int] = []
        self.clients = [Client(address) for _ in range(clients)]
        for client in self.clients:
            self.poll.register(client.sock, selectors.EVENT_READ, client)
            self.ask(client)

    def run(self, seconds: float) -> None:
        while self.answered < WARM_UP * len(self.clients):
            self.listen()
        self.first.clear()
        say("begun", requests=self.answered)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.listen()
        say("done", requests=self.answered, **quantiles(self.first))

    def listen(self) -> None:
        ready = self.poll.select(PATIENCE)
        if not ready:
            raise SystemExit(f"nothing came for {PATIENCE} s")
        for key, _ in ready:
            self.read(key.data)

    def read(self, client: Client) -> None:
        data = client.sock.recv(1 << 16)
        if not data:
            raise SystemExit(f"a connection broke off: {client.heard!r}")
        had = TOKEN in client.heard
        client.heard += data
        if not had and TOKEN in client.heard:
            self.first.append(time.monotonic_ns() - client.sent)
        if client.heard.endswith(END):
            if TOKEN not in client.heard:
                raise SystemExit(f"an answer without a token: {client.heard!r}")
            self.answered += 1
            self.ask(client)

    def ask(self, client: Client) -> None:
        client.heard = b""
        client.sent = time.monotonic_ns()
        client.sock.sendall(self.asked)


if __name__ == "__main__":
    address, route, model, clients, seconds = sys.argv[1:]
    Turns(address, request(route, model, 1, keep=True), int(clients)).run(float(seconds))
