"""The bare relay: the same bytes, with no HTTP, no translation and no lease. The floor under trio.

    python -m tests.bench.pump SOCKET PORT

Each connection to PORT on loopback is joined to one of its own to SOCKET. Says when it listens.
"""

from __future__ import annotations

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


async def main(path: str, port: int) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=4096)
    print("listening", flush=True)
    await trio.serve_listeners(partial(join, path), listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
