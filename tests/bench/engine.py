"""An engine that can say a great deal: vLLM's bytes, ready-made, from one loop.

    python -m tests.bench.engine SOCKET TOKENS RATE

Each stream gets TOKENS tokens. With a RATE (tokens a second) all streams go in step, as with real
engine steps: one token, one event, one HTTP chunk, one write. With RATE 0 each gets what its socket
takes, many chunks a write. A token's text is the monotonic time of its making, in ns.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

from tests.fakes.spelling import Answer, chunk, event, stream_head

BATCH = 16  # chunks a write, flat out
STAMP = b"t%019d"


class Stream:
    """One request, from its first byte to the last of its answer."""

    def __init__(self, sock: socket.socket, tokens: int) -> None:
        self.sock = sock
        self.left = tokens
        self.unsent = b""
        self.request = b""

    def heard(self) -> bool:
        """Read; is the request complete? Raises ConnectionError where nothing more comes."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError
        self.request += data
        head, blank, body = self.request.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if b"content-length:" in line]
        return bool(blank) and len(body) >= int(lengths[0].split(b":")[1] if lengths else 0)

    def send(self, data: bytes) -> None:
        self.unsent += data
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass


class Engine:
    """All streams, and the loop that feeds them."""

    def __init__(self, path: str, tokens: int, rate: float) -> None:
        self.tokens = tokens
        self.rate = rate
        self.poll = selectors.DefaultSelector()
        self.speaking: set[Stream] = set()
        answer = Answer(
            chat=True,
            body={"stream_options": {"include_usage": True}},
            model="bench",
            text="x",
            tokens=tokens,
            rate=rate,
        )
        token = chunk(b"data: %b\n\n" % answer.token("@" * len(STAMP % 0)).encode())
        self.before, _, self.after = token.partition(b"@" * len(STAMP % 0))
        self.beginning = stream_head() + b"".join(map(event, answer.beginning()))
        ending = [*answer.ending(), "[DONE]"]
        self.ending = b"".join(map(event, ending)) + b"0\r\n\r\n"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.poll.register(self.listener, selectors.EVENT_READ)

    def run(self) -> None:
        step = time.monotonic()
        while True:
            timeout = max(0.0, step - time.monotonic()) if self.rate else None
            for key, _ in self.poll.select(timeout):
                self.ready(key)
            if self.rate and time.monotonic() >= step:
                step += 1 / self.rate
                self.speak_all(1)

    def ready(self, key: selectors.SelectorKey) -> None:
        if key.data is None:
            self.accept()
        elif key.data in self.speaking:
            self.go_on(key.data)
        else:
            self.hear(key.data)

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        self.poll.register(sock, selectors.EVENT_READ, Stream(sock, self.tokens))

    def hear(self, stream: Stream) -> None:
        try:
            if stream.heard():
                self.begin(stream)
        except OSError:
            self.poll.unregister(stream.sock)
            stream.sock.close()

    def begin(self, stream: Stream) -> None:
        self.speaking.add(stream)
        stream.send(self.beginning)
        if self.rate:
            self.poll.unregister(stream.sock)
        else:
            self.poll.modify(stream.sock, selectors.EVENT_WRITE, stream)

    def speak_all(self, tokens: int) -> None:
        said = self.said(tokens)
        for stream in list(self.speaking):
            self.speak(stream, said, tokens)

    def go_on(self, stream: Stream) -> None:
        """Flat out: the socket takes more."""
        if stream.unsent:
            stream.send(b"")
        else:
            count = min(BATCH, stream.left)
            self.speak(stream, self.said(count), count)

    def speak(self, stream: Stream, said: bytes, tokens: int) -> None:
        try:
            if stream.left > 0:
                stream.left -= tokens
                stream.send(said)
            elif stream.left == 0:
                stream.left = -1
                stream.send(self.ending)
            else:
                stream.send(b"")
            if stream.left < 0 and not stream.unsent:
                self.end(stream)
        except OSError:
            self.end(stream)

    def end(self, stream: Stream) -> None:
        self.speaking.discard(stream)
        if not self.rate:
            self.poll.unregister(stream.sock)
        stream.sock.close()

    def said(self, tokens: int) -> bytes:
        return (self.before + STAMP % time.monotonic_ns() + self.after) * tokens


if __name__ == "__main__":
    Engine(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])).run()
