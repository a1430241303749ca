"""Sockets that systemd holds: by name, over restarts, and nobody is refused or reset."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.manager import hold, hold_both, managed_daemon
from tests.support.daemon import PATIENCE, fake_config, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration

RESTARTS = 5
CHAT = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}]})


def version(family: int, address: object) -> bytes:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)  # type: ignore[arg-type]
        sock.sendall(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("order", [("http", "ctl"), ("ctl", "http")])
def test_both_sockets_are_taken_by_name_and_stay_when_it_ends(
    home: Path, order: tuple[str, str]
) -> None:
    with managed_daemon(home) as manager:
        hold_both(manager)
        manager.stored = {name: manager.stored[name] for name in order}
        manager.start()
        one = manager.daemon
        assert one.http.get("/api/version").status_code == 200
        assert f"127.0.0.1:{one.port} (1 gateway)" in one.ctl("status")
        assert one.stop() == 0
        assert (one.run / "control.sock").exists(), "it is systemd's"
        with socket.create_connection(("127.0.0.1", one.port)):
            pass  # and whoever comes now waits for the next of us


def test_several_sockets_of_one_name_are_all_served(home: Path) -> None:
    with managed_daemon(home) as manager:
        run = manager.daemon.run
        hold_both(manager)
        six = hold(manager, "http", socket.AF_INET6, ("::1", 0))
        path = hold(manager, "http", socket.AF_UNIX, str(run / "http.sock"))
        manager.start()
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", manager.daemon.port)),
            (socket.AF_INET6, six),
            (socket.AF_UNIX, path),
        ):
            assert version(family, address).startswith(b"HTTP/1.1 200")


def test_a_socket_of_another_name_is_told_and_its_own_is_bound(home: Path) -> None:
    with managed_daemon(home) as manager:
        odd = hold(manager, "vllamad-http.socket", socket.AF_INET, ("127.0.0.1", 0))
        manager.start()
        assert manager.daemon.http.get("/api/version").status_code == 200
        (line,) = manager.daemon.logged(LogEvent.SOCKET_IGNORED, socket="vllamad-http.socket")
        assert "FileDescriptorName=http" in line
        assert odd


def test_a_control_socket_alone_leaves_the_public_one_to_us(home: Path) -> None:
    with managed_daemon(home) as manager:
        hold(manager, "ctl", socket.AF_UNIX, str(manager.daemon.run / "control.sock"))
        manager.start()
        assert manager.daemon.http.get("/api/version").status_code == 200
        assert "vllamad" in manager.daemon.ctl("status")


def test_a_public_socket_without_keys_is_no_way_around_the_configuration(home: Path) -> None:
    with managed_daemon(home) as manager:
        hold(manager, "http", socket.AF_INET, ("0.0.0.0", manager.daemon.port))
        manager.begin()
        until(manager.daemon.process_ended)
        assert manager.daemon.stop() == 78
        assert "server.allow_unauthenticated = true" in manager.daemon.text()


@pytest.mark.case("F9")
def test_an_address_beside_a_socket_of_systemd_s_is_told_to_have_no_effect(home: Path) -> None:
    with managed_daemon(home) as manager:
        hold_both(manager)
        del_listen = {"VLLAMAD_SERVER_LISTEN": "", "OLLAMA_HOST": "0.0.0.0:8200"}
        manager.start(del_listen)
        one = manager.daemon
        assert one.http.get("/api/version").status_code == 200
        (line,) = one.logged(LogEvent.CONFIG_IGNORED)
        assert "OLLAMA_HOST" in line
        assert "systemd holds the sockets" in one.text()
        assert one.stop() == 0


class Load:
    """Clients that never rest, and what became of every request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.over = threading.Event()
        self.outcomes: Counter[str] = Counter()

    def run(self, ask: Callable[[http.client.HTTPConnection], str], *, keep_alive: bool) -> None:
        connection = self.connection()
        while not self.over.is_set():
            try:
                outcome = ask(connection)
            except (OSError, http.client.HTTPException) as error:
                outcome = f"{ask.__name__}: {error!r}"
                connection.close()
                connection = self.connection()
            self.outcomes[outcome] += 1
            if not keep_alive:
                connection.close()
                connection = self.connection()
            self.over.wait(0.02)
        connection.close()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    @property
    def failed(self) -> dict[str, int]:
        good = ("answered", "streamed")
        return {how: count for how, count in self.outcomes.items() if how not in good}


def short(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/api/version")
    answer = connection.getresponse()
    return "answered" if b"version" in answer.read() else f"{answer.status}"


def streamed(connection: http.client.HTTPConnection) -> str:
    connection.request("POST", "/api/chat", CHAT, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        return f"{answer.status} {body[:200]!r}"
    return "streamed" if b'"done":true' in body else f"cut: {body[-200:]!r}"


@contextmanager
def fifty_clients(port: int) -> Generator[Load]:
    """New connections and kept ones, some of them for answers that are streamed."""
    load = Load(port)
    kinds = [(short, True)] * 16 + [(short, False)] * 18 + [(streamed, True)] * 8
    kinds += [(streamed, False)] * 8
    with ThreadPoolExecutor(len(kinds)) as pool:
        clients = [pool.submit(load.run, ask, keep_alive=keep) for ask, keep in kinds]
        try:
            yield load
        finally:
            load.over.set()
        for client in clients:
            client.result(PATIENCE)


def at_work(load: Load) -> None:
    """Wait until the clients are answered again, those too whose model had to be loaded first."""
    before = load.outcomes.copy()

    def more(how: str, count: int) -> bool:
        return load.outcomes[how] - before[how] >= count

    until(lambda: (more("answered", 100) and more("streamed", 32)) or load.failed)


def test_restarts_under_fifty_clients_refuse_reset_and_cut_nobody(home: Path) -> None:
    scenarios = {"a": {"tokens": 20, "rate": 100}}
    with managed_daemon(home, fake_config(scenarios=scenarios)) as manager:
        hold_both(manager)
        manager.start()
        manager.daemon.chat("a")
        began = time.monotonic()
        with fifty_clients(manager.daemon.port) as load:
            for _ in range(RESTARTS):
                at_work(load)
                manager.restart()
            at_work(load)
        print(f"{load.outcomes} in {time.monotonic() - began:.0f} s")
        assert load.failed == {}
        assert manager.heard.count("READY=1") == 1 + RESTARTS
        assert manager.heard.count("STOPPING=1") == RESTARTS


def test_killed_under_fifty_clients_nobody_is_refused(home: Path) -> None:
    with managed_daemon(home) as manager:
        hold_both(manager)
        manager.start()
        manager.daemon.chat("a")
        with fifty_clients(manager.daemon.port) as load:
            for _ in range(2):
                at_work(load)
                manager.restart(9)
            at_work(load)
        print(load.outcomes)
        assert not [how for how in load.failed if "Refused" in how]
        assert sum(load.failed.values()) <= 2 * 50, "what was in flight, and no more"
