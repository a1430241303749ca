"""What does a token cost on its way through the gateway, and how late is it? A table of ratios.

    python -m tests.bench [--quick]

Three sides, one after the other and in turn: the client straight at the engine, the client through
a bare relay of the same bytes, the client through the real gateway's /api/chat. Engine, relay and
clients are processes of their own; the supervisor is played by a broker that grants everything.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import trio

from tests.bench.load import request
from tests.models.checkpoints import write_checkpoint
from vllamad.config.settings import LogSettings, ModelSettings, ServerSettings
from vllamad.wire import gateway
from vllamad.wire.broker import Granted, encode
from vllamad.wire.gateway import GatewaySettings

RATE = 78.0  # tokens a second a stream: 256 streams make 20,000
SIDES = ("engine", "bare", "gateway")
LIMIT = 30.0  # seconds one measurement may take
BUDGET = 55.0  # seconds after which no further round begins; one takes about 25
HEADINGS = (
    f"{'case':14} {'side':8} {'tokens/s':>9} {'us/token':>9} {'ms/request':>10} "
    f"{'p50 ms':>8} {'p99 ms':>8}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    streams: int
    rate: float  # 0: flat out
    tokens: int  # for each stream

    @property
    def name(self) -> str:
        return f"{'paced' if self.rate else 'flat out'}, {self.streams}"


class Mark(msgspec.Struct):
    """What the load generator says."""

    mark: str
    tokens: int
    time: float
    born: float
    p50: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`speed` is tokens a second; the others are how late a token is, in milliseconds, and what
    the relaying process needs: `cpu` microseconds a token, `request` milliseconds to begin one."""

    speed: float
    cpu: float
    request: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Where the clients go, and the process between them and the engine."""

    address: str
    route: str
    pid: int | None


def main() -> None:
    """Measure and print; `--quick` only sees that it works."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    quick = parser.parse_args().quick
    print(header())
    trio.run(run, cases(quick), 1 if quick else 3)


def header() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} before we "
        "began.\nEngine, relay and clients share these cores, and other work may run beside them: "
        "read the\nratios, and expect them to differ by a fifth from run to run. "
        "Flat out the engine or the\nclients may be the limit, and the relay waits."
    )


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(streams=4, rate=RATE, tokens=40), Case(streams=4, rate=0, tokens=500)]
    seconds, flat = 2.0, 100_000
    streams = (1, 50, 256)
    paced = [Case(streams=n, rate=RATE, tokens=int(RATE * seconds)) for n in streams]
    return paced + [Case(streams=n, rate=0, tokens=flat // max(n, 3)) for n in streams]


async def run(todo: list[Case], rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    results: dict[tuple[Case, str], list[Result]] = {
        (case, side): [] for case in todo for side in SIDES
    }
    began = trio.current_time()
    try:
        for number in range(rounds):
            if trio.current_time() > began + BUDGET:
                break
            for index, (case, side) in enumerate(results):
                (place := folder / f"{number}-{index}").mkdir()
                results[case, side].append(await measured(case, side, place))
                print(".", end="", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"\n\n{HEADINGS}")
    for case in todo:
        tell(case, {side: middle(results[case, side]) for side in SIDES})
    print(f"medians of {len(results[todo[0], SIDES[0]])}; {trio.current_time() - began:.0f} s")


def middle(results: list[Result]) -> Result:
    return Result(
        speed=median(one.speed for one in results),
        cpu=median(one.cpu for one in results),
        request=median(one.request for one in results),
        p50=median(one.p50 for one in results),
        p99=median(one.p99 for one in results),
    )


def tell(case: Case, results: dict[str, Result]) -> None:
    name = case.name
    for side, one in results.items():
        work = f"{one.cpu:9.1f} {one.request:10.2f}" if one.cpu else " " * 20
        print(f"{name:14} {side:8} {one.speed:9,.0f} {work} {one.p50:8.2f} {one.p99:8.2f}")
        name = ""
    engine, bare, ours = (results[side] for side in SIDES)
    ratios = f"tokens/s x {ours.speed / bare.speed:.2f}, us/token x {ours.cpu / bare.cpu:.1f}"
    late = f"; adds {ours.p50 - engine.p50:.2f} / {ours.p99 - engine.p99:.2f} ms to the engine's"
    print(f"{'':14} gateway/bare: {ratios}{late if case.rate else ''}\n")


async def measured(case: Case, side: str, place: Path) -> Result:
    """One side of one case, with processes of its own."""
    words = ("tests.bench.engine", str(place / "engine"), str(case.tokens), str(case.rate))
    async with process(*words), relay(side, place) as way:
        await until_there(place / "engine")
        with trio.fail_after(LIMIT):
            await warm_up(way)
            return await load(case, way)


async def warm_up(way: Side) -> None:
    """Go the whole way once, as far as the first bytes of an answer."""
    if way.pid:
        stream = await trio.open_tcp_stream("127.0.0.1", int(way.address))
    else:
        stream = await trio.open_unix_socket(way.address)
    async with stream:
        await stream.send_all(request(way.route))
        if not await stream.receive_some():
            raise SystemExit(f"no answer from {way.address}")


async def load(case: Case, way: Side) -> Result:
    """Run the clients; the CPU of the relay is taken between their marks."""
    words = ("tests.bench.load", way.address, way.route, str(case.streams))
    cpu: dict[str, float] = {"born": spent(way.pid)}
    marks: dict[str, Mark] = {}
    async with process(*words, stdout=subprocess.PIPE) as clients:
        assert clients.stdout is not None
        buffer = b""
        while data := await clients.stdout.receive_some():
            *lines, buffer = (buffer + data).split(b"\n")
            for mark in (msgspec.json.decode(line, type=Mark) for line in lines):
                marks[mark.mark], cpu[mark.mark] = mark, spent(way.pid)
        if await clients.wait():
            raise SystemExit(f"the clients failed: {case.name} through {way.address}")
    return outcome(case, marks, cpu)


def outcome(case: Case, marks: dict[str, Mark], cpu: dict[str, float]) -> Result:
    """Paced: between the marks, so that what a request costs is no part of a token's price."""
    done = marks["done"]
    if case.rate:
        begun, ending = marks["begun"], marks["ending"]
        tokens, seconds = ending.tokens - begun.tokens, ending.time - begun.time
        work = cpu["ending"] - cpu["begun"]
    else:
        tokens, seconds, work = done.tokens, done.time - done.born, cpu["done"] - cpu["born"]
    if done.tokens != case.streams * case.tokens:
        raise SystemExit(f"{done.tokens} tokens arrived of {case.streams * case.tokens}")
    return Result(
        speed=tokens / seconds,
        cpu=work * 1e6 / tokens,
        request=(cpu["begun"] - cpu["born"]) * 1e3 / case.streams,
        p50=done.p50,
        p99=done.p99,
    )


def spent(pid: int | None) -> float:
    """CPU seconds of all threads of a process, to the nanosecond."""
    if pid is None:
        return 0.0
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@asynccontextmanager
async def relay(side: str, place: Path) -> AsyncGenerator[Side]:
    """What stands between the clients and the engine."""
    engine = str(place / "engine")
    if side == "engine":
        yield Side(address=engine, route="/v1/chat/completions", pid=None)
        return
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port, number = str(listener.getsockname()[1]), listener.fileno()
        if side == "bare":
            async with process("tests.bench.pump", engine, str(number), fds=(number,)) as pump:
                yield Side(address=port, route="/v1/chat/completions", pid=pump.pid)
        else:
            async with gateway_process(place, number) as pid:
                yield Side(address=port, route="/api/chat", pid=pid)


@asynccontextmanager
async def gateway_process(place: Path, number: int) -> AsyncGenerator[int]:
    """The real thing, told what a supervisor tells it."""
    model = write_checkpoint(place / "model", tokenizer_config_json={"chat_template": "x"})
    settings = GatewaySettings(
        broker=place / "broker",
        models_dir=place / "models",
        sockets=(number,),
        loopback=True,
        server=ServerSettings(),
        logging=LogSettings(),
        models={"bench": ModelSettings(path=str(model))},
    )
    async with (
        broker(place),
        process("vllamad", "--gateway", fds=(number,), stdin=subprocess.PIPE) as child,
    ):
        assert child.stdin is not None
        await child.stdin.send_all(gateway.encode(settings) + b"\n")
        yield child.pid


@asynccontextmanager
async def broker(place: Path) -> AsyncGenerator[None]:
    """Grants every lease at once."""

    async def grant(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await stream.receive_some()
                granted = Granted(
                    endpoint=str(place / "engine"), served_name="bench", context_length=8192
                )
                await stream.send_all(encode(granted))
                await stream.receive_some()
        except trio.BrokenResourceError:
            pass

    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(place / "broker"))
    sock.listen(4096)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, grant, [trio.SocketListener(sock)])
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def process(
    *words: str,
    fds: tuple[int, ...] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> AsyncGenerator[trio.Process]:
    """A Python module run as a process; killed when the block is left."""
    child = await trio.lowlevel.open_process(
        [sys.executable, "-m", *words],
        pass_fds=fds,
        stdin=stdin,
        stdout=stdout,
        stderr=None if words[0].startswith("tests") else subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.kill()
        with trio.CancelScope(shield=True):
            await child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


async def until_there(path: Path) -> None:
    """Wait until somebody listens on `path`."""
    with trio.fail_after(LIMIT):
        while True:
            try:
                await (await trio.open_unix_socket(path)).aclose()
                return
            except OSError:
                await trio.sleep(0.01)


if __name__ == "__main__":
    main()
