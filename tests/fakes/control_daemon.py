"""A scripted daemon on a real control socket."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio

from vllamad.host.control_socket import bind_control
from vllamad.http.control_server import (
    ControlRequest,
    ControlResponse,
    Send,
    StreamResponse,
    serve_http,
)

Answer = ControlResponse | StreamResponse | Exception


@dataclass
class ControlDaemon:
    """Answers as it was told to, by method and decoded path, and remembers what it was asked."""

    path: Path
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict[tuple[str, str], Answer])
    asked: list[ControlRequest] = field(default_factory=list[ControlRequest])

    def says(self, method: str, path: str, answer: object) -> None:
        """`answer`: a struct or dict as JSON, bytes or an Answer as they are, a list as NDJSON."""
        match answer:
            case bytes():
                answer = ControlResponse(body=answer)
            case list():
                answer = StreamResponse(produce=partial(send_all, answer))
            case ControlResponse() | StreamResponse() | Exception():
                pass
            case _:
                answer = ControlResponse(body=msgspec.json.encode(answer))
        self.answers[method, path] = answer

    async def handle(self, request: ControlRequest) -> ControlResponse | StreamResponse:
        self.asked.append(request)
        answer = self.answers[request.method, "/" + "/".join(request.path)]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def send_all(pieces: list[object], send: Send) -> None:
    for piece in pieces:
        await send(piece if isinstance(piece, bytes) else msgspec.json.encode(piece) + b"\n")


@contextmanager
def serving_control(daemon: ControlDaemon) -> Generator[None]:
    """Serve from a thread until the block is left."""
    listening = bind_control(daemon.path, "none")
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []
    up = threading.Event()  # a test may be over before its thread has begun

    async def serve() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        up.set()
        with scope:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
            await serve_http(listener, daemon.handle)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert up.wait(60)
    try:
        yield
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()
        daemon.path.unlink()
