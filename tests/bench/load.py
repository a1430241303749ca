"""The clients: so many streams at once, every token's delay taken from the time it carries.

    python -m tests.bench.load ADDRESS ROUTE STREAMS

ADDRESS is a port on loopback or the path of a Unix socket. Says one JSON object a line: `begun`
when every stream has had a token, `ending` when the first is over, `done` at the end, each with the
tokens so far and the time (s). Delays are those after `begun`: before, requests are being read.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

STAMPS = re.compile(rb"t(\d{19})")
TAIL = 19  # bytes: all of a stamp but its last digit, which the next read may bring
OVER = (b"data: [DONE]\n\n", b'"done":true')


class Client:
    def __init__(self, address: str, request: bytes) -> None:
        if address.isdigit():
            self.sock = socket.create_connection(("127.0.0.1", int(address)))
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(address)
        self.sock.sendall(request)
        self.sock.setblocking(False)
        self.tail = b""
        self.tokens = 0
        self.last = b""


def request(route: str) -> bytes:
    """One question, as bytes."""
    body = '{"model":"bench","messages":[{"role":"user","content":"?"}],"stream":true}'
    head = f"POST {route} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Load:
    def __init__(self, address: str, route: str, streams: int) -> None:
        self.poll = selectors.DefaultSelector()
        self.tokens = 0
        self.delays: list[int] = []
        self.streams = self.open = streams
        self.waiting = streams
        self.born = time.monotonic()
        for _ in range(streams):
            client = Client(address, request(route))
            self.poll.register(client.sock, selectors.EVENT_READ, client)

    def run(self) -> None:
        while self.open:
            for key, _ in self.poll.select():
                self.read(key.data)
        self.delays.sort()
        self.say("done", p50=self.delay(0.5), p99=self.delay(0.99))

    def read(self, client: Client) -> None:
        data = client.sock.recv(1 << 18)
        now = time.monotonic_ns()
        if not data:
            self.end(client)
            return
        stamps = STAMPS.findall(client.tail + data)
        client.tail = (client.tail + data)[-TAIL:]
        client.last = (client.last + data)[-400:]
        self.tokens += len(stamps)
        self.delays += [now - int(stamp) for stamp in stamps]
        if stamps and not client.tokens:
            self.waiting -= 1
            if not self.waiting:
                self.say("begun")
                self.delays.clear()
        client.tokens += len(stamps)

    def end(self, client: Client) -> None:
        if not any(words in client.last for words in OVER):
            raise SystemExit(f"a stream broke off: {client.last!r}")
        self.poll.unregister(client.sock)
        client.sock.close()
        if self.open == self.streams:
            self.say("ending")
        self.open -= 1

    def say(self, mark: str, **more: float) -> None:
        said = {"mark": mark, "tokens": self.tokens, "time": time.monotonic(), **more}
        print(json.dumps(said | {"born": self.born}), flush=True)

    def delay(self, part: float) -> float:
        """A quantile of the delays, milliseconds."""
        return self.delays[int(part * (len(self.delays) - 1))] / 1e6 if self.delays else 0.0


if __name__ == "__main__":
    Load(sys.argv[1], sys.argv[2], int(sys.argv[3])).run()
