"""The daemon ended at any moment, and one model ordered about by everybody at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.fakes.hostile_clients import SEED, at_once, connected, post, traces
from tests.support.daemon import Daemon, daemon, fake_config, free_port, until
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.shim import Process, descendants

pytestmark = pytest.mark.integration

SHORT = "[server]\ndrain_timeout = 1\n[worker]\ndrain_timeout = 1\nstop_timeout = 2\n"
SCENARIO = {
    "load": 0.5,
    "children": ["VLLM::EngineCor"],
    "tokens": 100_000,
    "rate": 50,
    "orphan": True,
    "shared": True,
}
GONE = (httpx.TransportError, OSError, AssertionError, subprocess.TimeoutExpired)
Moment = Callable[[Daemon, ThreadPoolExecutor], object]


@contextmanager
def launched(home: Path, config: str) -> Generator[Daemon]:
    """A daemon that has just been started, and is not waited for."""
    (home / "vllamad.toml").write_text(config)
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as run:
        one = Daemon(home, free_port(), Path(run))
        with one.log.open("ab") as output:
            one.process = subprocess.Popen(
                [sys.executable, "-m", "vllamad"],
                cwd=home,
                env=one.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        try:
            yield one
        finally:
            one.http.close()
            one.process.kill()
            one.process.wait()


def starting(one: Daemon, _: ThreadPoolExecutor) -> None:
    until(lambda: one.logged(LogEvent.GATEWAY_STARTED))


def loading(one: Daemon, clients: ThreadPoolExecutor) -> None:
    until(lambda: one.logged(LogEvent.DAEMON_READY))
    clients.submit(stream, one)
    until(lambda: one.logged(LogEvent.WORKER_STARTING))


def streaming(one: Daemon, clients: ThreadPoolExecutor) -> None:
    loading(one, clients)
    until(lambda: one.workers()[0]["leases"] == 1)


def backing_off(one: Daemon, clients: ThreadPoolExecutor) -> None:
    streaming(one, clients)
    core = next(process for process in one.processes() if process.comm.startswith("VLLM::"))
    os.kill(core.pid, signal.SIGKILL)
    until(lambda: one.workers()[0]["state"] == "backoff")


def restarting(one: Daemon, clients: ThreadPoolExecutor) -> None:
    streaming(one, clients)
    clients.submit(order, one, "restart")
    until(lambda: len(one.logged(LogEvent.WORKER_STARTING)) == 2)


def unloading(one: Daemon, clients: ThreadPoolExecutor) -> None:
    streaming(one, clients)
    clients.submit(order, one, "unload")
    until(lambda: one.logged(LogEvent.WORKER_DRAINING))


def any_time(seed: int) -> Moment:
    random = Random(SEED * 1000 + seed)

    def moment(one: Daemon, clients: ThreadPoolExecutor) -> None:
        for act in (stream, stream, lambda one: order(one, random.choice(["restart", "unload"]))):
            clients.submit(in_its_time, one, act)
        threading.Event().wait(random.random() * 3)

    moment.__name__ = f"any_time_{seed}"
    return moment


MOMENTS = [
    starting, loading, streaming, backing_off, restarting, unloading, *map(any_time, range(3)),
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_term_at_any_moment_leaves_nothing(home: Path, moment: Moment) -> None:
    config = fake_config(scenarios={"a": SCENARIO, "b": SCENARIO}, more=SHORT)
    with ThreadPoolExecutor() as clients, launched(home, config) as one:
        moment(one, clients)
        began = time.monotonic()
        status = one.stop()
        assert time.monotonic() - began < 25  # 4 s of limits; the rest is a busy machine's
        assert status == 0 or (status == -signal.SIGTERM and not one.logged(LogEvent.DAEMON_READY))
        assert traces(home) == []
        assert [path for path in one.run.rglob("*") if path.name != "w"] == []
        assert list(Path("/dev/shm").glob(f"psm_{one.run.name}_*")) == []
        assert " ERROR " not in one.text()


def in_its_time(one: Daemon, act: Callable[[Daemon], object]) -> None:
    until(lambda: one.logged(LogEvent.DAEMON_READY) or one.process_ended())
    act(one)


def stream(one: Daemon) -> None:
    with suppress(*GONE), one.streaming("a") as response:
        for _ in response.iter_raw():
            pass


def order(one: Daemon, verb: str) -> bytes:
    """Give an order for the model `a`; all that the control socket says to it."""
    head = f"POST /v1/models/a/{verb} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    heard = b""
    with suppress(*GONE), connected(str(one.run / "control.sock"), 60) as sock:
        sock.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
        while data := sock.recv(1 << 16):
            heard += data
    return heard


def test_clients_that_never_read_cannot_hold_up_the_end(home: Path) -> None:
    config = fake_config(scenarios={"a": {"tokens": 10**7}}, more=SHORT)
    ask = post("/api/chat", {"model": "a", "messages": [{"role": "user", "content": "hi"}]})
    follow = b"GET /v1/models/a/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with daemon(home, config=config) as one, ExitStack() as held:
        one.chat("a", options={"num_predict": 1})
        for _ in range(20):
            held.enter_context(connected(("127.0.0.1", one.port), 5)).sendall(ask)
            held.enter_context(connected(str(one.run / "control.sock"), 5)).sendall(follow)
        until(lambda: one.workers()[0]["leases"] == 20)
        began = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - began < 20  # its limits are 4 s; a held stream has none


def test_a_second_term_means_now(home: Path) -> None:
    with daemon(home, config=fake_config(scenarios={"a": SCENARIO})) as one:
        with ThreadPoolExecutor() as clients:
            clients.submit(stream, one)
            until(lambda: one.workers() and one.workers()[0]["leases"] == 1)
            os.kill(one.pid, signal.SIGTERM)
            until(lambda: one.logged(LogEvent.DAEMON_STOPPING))
            began = time.monotonic()
            assert one.stop() == 0
            assert time.monotonic() - began < 20  # a drain takes 30
        assert traces(home) == []


def test_a_storm_of_orders_on_one_model_never_makes_two_of_it(home: Path) -> None:
    scenario = {"children": ["VLLM::EngineCor"], "tokens": 30, "rate": 300}
    more = "[worker]\nbackoff_base = 0.05\nbackoff_limit = 0.2\nmax_failures = 100\n"
    with daemon(home, config=fake_config(scenarios={"a": scenario}, more=more)) as one:
        over = threading.Event()
        most = 0

        def storm(seed: int) -> None:
            random = Random(SEED * 1000 + seed)
            while not over.is_set():
                random.choice([talk, talk, load, unload, restart, forget, kill])(one, random)

        def watch() -> None:
            nonlocal most
            until_over = time.monotonic() + 8
            while time.monotonic() < until_over:
                most = max(most, len(groups(one)))
                over.wait(0.01)
            over.set()

        at_once([watch, *(lambda seed=seed: storm(seed) for seed in range(6))], threads=7)
        assert most == 1
        assert b'"status":"ready","done":true' in order(one, "load")
        assert one.chat("a").json()["done"] is True
        assert [(worker["state"], worker["leases"]) for worker in one.workers()] == [("ready", 0)]
        assert len(groups(one)) == 1
        assert " ERROR " not in one.text()
        order(one, "unload")
        assert one.workers() == []
        assert one.processes() == []


def groups(one: Daemon) -> list[Process]:
    """The process groups of workers, by their shims; a shim's fork is not yet a worker."""
    below = descendants(one.pid)
    return [found for found in below if found.comm == "vllamad-shim" and found.parent == one.pid]


def talk(one: Daemon, random: Random) -> None:
    with suppress(*GONE), one.streaming("a") as response:
        for number, _ in enumerate(response.iter_lines()):
            if number > random.randrange(40):
                break


def load(one: Daemon, random: Random) -> None:
    if random.random() < 0.5:
        order(one, "load")
    else:
        one.http.post("/api/generate", json={"model": "a"})


def unload(one: Daemon, random: Random) -> None:
    order(one, "unload")


def restart(one: Daemon, random: Random) -> None:
    order(one, "restart")


def forget(one: Daemon, random: Random) -> None:
    one.http.post("/api/generate", json={"model": "a", "keep_alive": 0})


def kill(one: Daemon, random: Random) -> None:
    """One process of the worker, be it shim, leader or core."""
    if processes := one.processes():
        with suppress(ProcessLookupError):
            os.kill(random.choice(processes).pid, signal.SIGKILL)
