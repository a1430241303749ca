"""A small HTTP/1.1 server for many slow answers, each written as a generator of steps.

Made for the fake engine: fast, standard library only, and every step is one write.
"""

from __future__ import annotations

import heapq
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from math import inf

BURST = 64  # steps of one connection before the next has its turn

# Bytes to send, a time (monotonic) to wait for, or None to close the connection.
Steps = Generator[bytes | float | None, None, None]
Answering = Callable[[str, bytes], Steps]  # from the head and the body of a request


class Loop:
    """Runs the steps of all connections in turn."""

    def __init__(self, listener: socket.socket, answer: Answering) -> None:
        self.answer = answer
        self.ready: deque[Connection] = deque()
        self.timers: list[tuple[float, int, Connection]] = []
        self.selector = selectors.DefaultSelector()
        self.when_readable(listener, lambda: Connection(self, listener.accept()[0]))

    def when_readable(self, sock: socket.socket, act: Callable[[], object]) -> None:
        def on_event(_mask: int) -> None:
            act()

        self.selector.register(sock, selectors.EVENT_READ, on_event)

    def run_until(self, end: Callable[[], float]) -> None:
        while (now := time.monotonic()) < end():
            until = min(end(), self.timers[0][0]) if self.timers else end()
            wait = 0 if self.ready else max(0, until - now)
            for key, mask in self.selector.select(None if wait == inf else wait):
                key.data(mask)
            while self.timers and self.timers[0][0] <= time.monotonic():
                self.ready.append(heapq.heappop(self.timers)[2])
            for _ in range(len(self.ready)):
                self.ready.popleft().go_on()


class Connection:
    """One client: reads its requests, takes the steps of each answer."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.loop, self.sock = loop, sock
        self.inbox, self.unsent = b"", b""
        self.steps: Steps | None = None
        sock.setblocking(False)
        loop.selector.register(sock, selectors.EVENT_READ, self.on_event)

    def on_event(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self.loop.selector.modify(self.sock, selectors.EVENT_READ, self.on_event)
            self.loop.ready.append(self)
        if mask & selectors.EVENT_READ:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionError:
                data = b""
            if not data:
                return self.close()
            self.inbox += data
            if self.steps is None:
                self.next_request()

    def next_request(self) -> None:
        head, end, rest = self.inbox.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if end and len(rest) >= size:
            self.inbox = rest[size:]
            self.steps = self.loop.answer(head.decode(), rest[:size])
            self.loop.ready.append(self)

    def go_on(self) -> None:
        for _ in range(BURST):
            if self.steps is None or (self.unsent and not self.send()):
                return
            try:
                step = next(self.steps)
            except StopIteration:
                self.steps = None
                return self.next_request()
            if step is None:
                return self.close()
            if isinstance(step, (float, int)):
                heapq.heappush(self.loop.timers, (step, id(self), self))
                return
            self.unsent = step
        self.loop.ready.append(self)

    def send(self) -> bool:
        """Send what is left; False when that has to wait, or will never be."""
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return False
        if self.unsent:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.loop.selector.modify(self.sock, both, self.on_event)
        return not self.unsent

    def close(self) -> None:
        if self.steps:
            self.steps.close()
        self.steps, self.unsent = None, b""
        if self.sock.fileno() >= 0:
            self.loop.selector.unregister(self.sock)
            self.sock.close()
