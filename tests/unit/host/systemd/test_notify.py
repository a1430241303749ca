"""Speaking to a service manager, and taking over what it opened."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from vllamad.host.systemd.notify import (
    PRIVATE_VARIABLES,
    Notifier,
    inherited_sockets,
    watchdog_interval,
)


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def heard(self):
        return self.socket.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    path = f"{tmp_path}/n" if request.param == "path" else f"\0vllamad-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", path.replace("\0", "@"))
    manager = Manager(path)
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(manager):
    notifier = Notifier(os.environ)
    yield notifier
    notifier.close()


def test_each_call_is_one_message(manager, notifier):
    notifier.ready()
    assert manager.heard() == "READY=1"
    notifier.stopping()
    assert manager.heard() == "STOPPING=1"
    notifier.watchdog()
    assert manager.heard() == "WATCHDOG=1"
    notifier.trigger()
    assert manager.heard() == "WATCHDOG=trigger"
    notifier.errno(98)
    assert manager.heard() == "ERRNO=98"
    notifier.extend_timeout(1.5)
    assert manager.heard() == "EXTEND_TIMEOUT_USEC=1500000"


def test_a_barrier_is_passed_when_the_manager_has_come_to_it(manager, notifier):
    notifier.ready()
    with ThreadPoolExecutor(1) as pool:
        passed = pool.submit(notifier.barrier)
        assert manager.heard() == "READY=1"
        said, (descriptor,), *_ = socket.recv_fds(manager.socket, 100, 1)
        assert said == b"BARRIER=1"
        assert not passed.done()
        os.close(descriptor)
        assert passed.result(timeout=5)


def test_a_manager_that_does_not_read_is_not_waited_for_for_ever(manager, notifier):
    assert not notifier.barrier(0.01)


def test_a_manager_that_is_gone_is_not_waited_for(manager, notifier):
    manager.socket.close()
    assert not notifier.barrier()


def test_without_a_manager_there_is_no_barrier():
    assert Notifier({}).barrier()


def test_a_reload_tells_its_time(manager, notifier):
    notifier.reloading()
    first, second = manager.heard().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_status_is_one_ascii_line_and_can_say_nothing_else(manager, notifier):
    notifier.status("2 models — bereit für alle\nREADY=1")
    assert manager.heard() == "STATUS=2 models ? bereit f?r alle READY=1"
    notifier.status("x" * 5000)
    assert manager.heard() == "STATUS=" + "x" * 512


def test_a_manager_that_does_not_read_stops_nobody(manager, notifier):
    for _ in range(2000):  # net.unix.max_dgram_qlen is far below
        notifier.watchdog()


def test_an_environment_without_a_manager_counts_more_than_the_processs_own(manager):
    Notifier({}).ready()
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.heard()


def test_a_manager_that_is_gone_is_no_error(manager, notifier):
    manager.socket.close()
    notifier.ready()


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_without_a_manager_every_call_does_nothing(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier(os.environ)
    notifier.ready()
    notifier.status("up")
    notifier.close()
    notifier.ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_names_us(environ, seconds):
    assert watchdog_interval(environ, 7) == seconds


# Takes over what was passed, and says what it got; exits 1 when a child would inherit it too.
CHILD = """
import os, sys
from vllamad.host.systemd.notify import inherited_sockets
found = inherited_sockets(os.environ, os.getpid())
for name, sockets in found.items():
    for one in sockets:
        print(name, one.family.name, one.getsockname())
        if os.get_inheritable(one.fileno()):
            sys.exit(1)
        one.close()
"""


# The step before: descriptors moved to 3 and on, LISTEN_PID set to the process that runs CHILD.
START = """
import os, sys
for index, fd in enumerate(map(int, sys.argv[2:])):
    os.dup2(fd, 3 + index)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def as_systemd_does(fds, **variables):
    return subprocess.run(
        [sys.executable, "-c", START, CHILD, *map(str, fds)],
        env={**os.environ, "LISTEN_FDS": str(len(fds)), **variables},
        pass_fds=fds,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()


@pytest.fixture
def listeners(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as http, socket.socket(socket.AF_UNIX) as control:
        control.bind(f"{tmp_path}/c")
        control.listen()
        high = [os.dup2(one.fileno(), 60 + n) for n, one in enumerate((http, control))]
        yield high, http.getsockname(), f"{tmp_path}/c"
        for fd in high:
            os.close(fd)


def test_sockets_are_taken_over_by_name_whatever_their_order(listeners):
    (http, control), address, path = listeners
    seen = [
        as_systemd_does([http, control], LISTEN_FDNAMES="http:ctl"),
        as_systemd_does([control, http], LISTEN_FDNAMES="ctl:http"),
    ]
    assert sorted(seen[0]) == sorted(seen[1]) == [f"ctl AF_UNIX {path}", f"http AF_INET {address}"]


def test_several_sockets_may_share_a_name_and_one_may_have_none(listeners):
    (http, control), address, path = listeners
    assert (
        as_systemd_does([http, http], LISTEN_FDNAMES="http:http") == [f"http AF_INET {address}"] * 2
    )
    assert as_systemd_does([control]) == [f"unknown AF_UNIX {path}"]


def test_a_descriptor_that_is_no_socket_is_left_alone(listeners):
    (http, _), address, _ = listeners
    with open(os.devnull) as file:
        fd = os.dup2(file.fileno(), 70)
    names = as_systemd_does([fd, http], LISTEN_FDNAMES="stored:http")
    os.close(fd)
    assert names == [f"http AF_INET {address}"]


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7", "LISTEN_FDS": "many"}],
)
def test_what_was_meant_for_another_process_is_not_ours(environ):
    assert inherited_sockets(environ, 7) == {}


def test_a_child_gets_nothing_it_could_speak_for_the_daemon_with():
    assert {"NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "JOURNAL_STREAM"} <= PRIVATE_VARIABLES
