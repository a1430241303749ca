"""The bare relay: the same bytes, with no HTTP, no translation and no lease. The floor under trio.

    python -m tests.bench.pump SOCKET FD

Listens on the inherited descriptor FD; each connection is joined to one of its own to SOCKET.
"""

from __future__ import annotations

import socket
import sys
from functools import partial

import trio


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(65536):
        await sink.send_all(data)
    await sink.send_eof()


async def join(path: str, client: trio.SocketStream) -> None:
    try:
        async with await trio.open_unix_socket(path) as engine, trio.open_nursery() as nursery:
            nursery.start_soon(copy, client, engine)
            await copy(engine, client)
            nursery.cancel_scope.cancel()
    except* trio.BrokenResourceError:
        pass


async def main(path: str, number: int) -> None:
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=number)))
    await trio.serve_listeners(partial(join, path), [listener])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
