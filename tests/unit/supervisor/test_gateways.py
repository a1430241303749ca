"""Gateways are kept alive whatever ends them, and end when they are told to: real processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.support.daemon import is_alive
from vllamad.errors import HostProblem
from vllamad.supervisor import gateways as module
from vllamad.supervisor.gateways import GatewayLaunch, Gateways

pytestmark = pytest.mark.integration

# What a gateway does that reads its settings and then waits for the end of its standard input.
GOOD = "import sys; sys.stdin.buffer.read()"
# Both write where they are when they have come so far; the folder is their first argument.
READY = "import os, signal, sys; open(f'{sys.argv[1]}/{os.getpid()}', 'w').close(); "
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "signal.pause()"
# It serves, until it is told to retire, and ends when it is told again.
RETIRING = (
    READY + "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM]); "
    "pipe = int(os.environ['VLLAMAD_GATEWAY_PIPE']); print('a library prints', flush=True); "
    "os.write(pipe, b'serving\\n'); signal.sigwait([signal.SIGUSR1]); "
    "os.close(pipe); signal.sigwait([signal.SIGTERM])"
)
POLITE = READY + "signal.sigwait([signal.SIGTERM]); sys.exit(0)"


def launch(code: str, *words: object, drain: float = 0.1, settings: bytes = b"{}") -> GatewayLaunch:
    return GatewayLaunch(
        settings=settings,
        sockets=(),
        environment={},
        drain_timeout=drain,
        argv=(sys.executable, "-S", "-c", code, *map(str, words)),
    )


@asynccontextmanager
async def kept(gateways: Gateways) -> AsyncGenerator[None]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            yield
            nursery.cancel_scope.cancel()


async def until_there_are(gateways: Gateways, count: int, *, without: int = 0) -> list[int]:
    while len(pids := [pid for pid in gateways.pids if pid != without]) != count:  # noqa: ASYNC110
        await trio.sleep(0.005)
    return pids


async def until_ready(folder: Path, count: int) -> list[int]:
    while len(names := os.listdir(folder)) != count:  # noqa: ASYNC110
        await trio.sleep(0.005)
    return [int(name) for name in names]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_dies_is_replaced_and_the_others_stay(number: int) -> None:
    gateways = Gateways(launch(GOOD), 2)
    async with kept(gateways):
        first, second = await until_there_are(gateways, 2)
        os.kill(first, number)
        assert second in await until_there_are(gateways, 2, without=first)


async def test_leaving_leaves_none() -> None:
    gateways = Gateways(launch(GOOD), 2)
    async with kept(gateways):
        pids = await until_there_are(gateways, 2)
    assert not [pid for pid in pids if is_alive(pid)]
    assert gateways.pids == []


async def test_one_that_cannot_live_is_tried_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_DELAY", 0.4)
    births: list[float] = []
    gateways = Gateways(launch("raise SystemExit(3)"), 1)
    started = gateways._newest._live

    async def noted(number: int) -> tuple[bool, str]:
        births.append(trio.current_time())
        return await started(number)

    monkeypatch.setattr(gateways._newest, "_live", noted)
    async with kept(gateways):
        while len(births) < 5:  # noqa: ASYNC110
            await trio.sleep(0.01)
    first, *others = (later - before for before, later in pairwise(births))
    assert 0.2 <= first < min(others)
    assert min(others) >= 0.4, "the next pause is twice as long"
    assert others[-1] < 1.5, "and from a limit on they are all alike"


async def test_one_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "gateway"
    gateways = Gateways(
        GatewayLaunch(
            settings=b"", sockets=(), environment={}, drain_timeout=0, argv=(str(program),)
        ),
        1,
    )
    async with kept(gateways):
        await trio.sleep(0.05)
        assert gateways.pids == []
        unfinished = tmp_path / "unfinished"
        unfinished.write_text(f"#!{sys.executable} -S\n{GOOD}\n")
        unfinished.chmod(0o700)
        unfinished.rename(program)
        await until_there_are(gateways, 1)


async def test_each_is_told_its_settings_and_inherits_its_sockets() -> None:
    read, write = os.pipe()
    code = (
        "import os, sys; line = sys.stdin.buffer.readline(); "
        "os.write(int(sys.argv[1]), line); sys.stdin.buffer.read()"
    )
    told = GatewayLaunch(
        settings=b'{"broker": "b"}',
        sockets=(write,),
        environment={"ONLY": "this"},
        drain_timeout=1,
        argv=(sys.executable, "-S", "-c", code, str(write)),
    )
    async with kept(Gateways(told, 1)), trio.lowlevel.FdStream(read) as pipe:
        assert await pipe.receive_some() == b'{"broker": "b"}\n'
    os.close(write)


async def test_stopping_lets_each_end_in_its_own_time_and_replaces_none(tmp_path: Path) -> None:
    gateways = Gateways(launch(POLITE, tmp_path, drain=10), 2)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            pids = await until_ready(tmp_path, 2)
            gateways.stop()
    assert not [pid for pid in pids if is_alive(pid)]
    assert len(os.listdir(tmp_path)) == 2


async def test_one_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.1)
    gateways = Gateways(launch(DEAF, tmp_path, drain=0.2), 1)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            (pid,) = await until_ready(tmp_path, 1)
            began = trio.current_time()
            gateways.stop()
    assert 0.3 <= trio.current_time() - began < 5
    assert not is_alive(pid)


async def test_one_that_reads_nothing_is_stopped_all_the_same(tmp_path: Path) -> None:
    gateways = Gateways(launch(POLITE, tmp_path, settings=b"x" * (1 << 20)), 1)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            await until_ready(tmp_path, 1)
            gateways.stop()


async def test_stopped_while_it_pauses_none_is_started_any_more() -> None:
    gateways = Gateways(launch("raise SystemExit(3)"), 1)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            await until_there_are(gateways, 1)
            await until_there_are(gateways, 0)
            gateways.stop()


async def test_stopped_while_it_is_being_started_it_ends() -> None:
    gateways = Gateways(launch(GOOD, drain=10), 3)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            await trio.lowlevel.checkpoint()
            gateways.stop()
    assert gateways.pids == []


async def test_others_take_over_once_they_serve_and_the_old_ones_take_nobody(
    tmp_path: Path,
) -> None:
    first, second = (launch(RETIRING, tmp_path, drain=drain) for drain in (10, 11))
    gateways = Gateways(first, 1)
    async with kept(gateways):
        (old,) = await until_ready(tmp_path, 1)
        assert gateways.serve(first, 1)
        await gateways.renew(second, 2)
        assert gateways.serve(second, 2)
        assert old not in gateways.pids
        assert len(gateways.pids) == 2
        assert is_alive(old), "it may be answering"
        gateways.stop()
        while is_alive(old):  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_one_that_has_retired_is_not_replaced(tmp_path: Path) -> None:
    gateways = Gateways(launch(RETIRING, tmp_path), 1)
    async with kept(gateways):
        (old,) = await until_ready(tmp_path, 1)
        await gateways.renew(launch(RETIRING, tmp_path), 1)
        os.kill(old, signal.SIGTERM)
        await until_there_are(gateways, 1)
        assert len(os.listdir(tmp_path)) == 2


async def test_where_the_new_ones_do_not_serve_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_START_LIMIT", 0.3)
    good = launch(RETIRING, tmp_path)
    gateways = Gateways(good, 1)
    async with kept(gateways):
        pids = await until_ready(tmp_path, 1)
        with pytest.raises(HostProblem, match="cannot start gateways"):
            await gateways.renew(launch(GOOD), 1)
        assert gateways.serve(good, 1)
        assert gateways.pids == pids


@pytest.mark.parametrize(
    ("code", "level", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ERROR", "killed by SIGSEGV (segmentation fault)"),
        ("raise SystemExit(3)", "ERROR", "exit status 3"),
        ("raise SystemExit(0)", "WARNING", "exit status 0"),
    ],
)
async def test_an_end_is_told_with_its_signal_and_an_orderly_one_is_no_error(
    caplog: pytest.LogCaptureFixture, code: str, level: str, told: str
) -> None:
    gateways = Gateways(launch(code), 1)
    async with kept(gateways):
        while not (found := [one for one in caplog.records if one.levelname == level]):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert found[0].fields["reason"] == told  # type: ignore[attr-defined]


@pytest.mark.case("F13")
async def test_an_orderly_end_just_before_a_stop_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    gateways = Gateways(launch(GOOD), 2)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateways.run)
            pids = await until_there_are(gateways, 2)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            await until_there_are(gateways, 0)
            gateways.stop()
    assert [one.message for one in caplog.records if one.levelname != "INFO"] == []


async def test_each_is_in_a_process_group_of_its_own() -> None:
    gateways = Gateways(launch(GOOD), 1)
    async with kept(gateways):
        (pid,) = await until_there_are(gateways, 1)
        assert os.getpgid(pid) == pid
