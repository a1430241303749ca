"""What is put into a manager's store comes back to the next process, by its name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from vllamad.errors import HostProblem
from vllamad.host.systemd.fd_store import FdStore, open_store


@pytest.fixture
def manager() -> Generator[socket.socket]:
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with sock:
            sock.bind(f"{folder}/notify")
            sock.settimeout(5)
            yield sock


@pytest.mark.parametrize("address", ["", "vsock:2:1", "notify"])
def test_without_a_manager_there_is_no_store(address: str) -> None:
    assert open_store({"NOTIFY_SOCKET": address} if address else {}) is None


async def test_descriptors_are_put_under_a_name_and_not_watched(manager: socket.socket) -> None:
    store = open_store({"NOTIFY_SOCKET": manager.getsockname()})
    assert store is not None
    put = os.pipe()
    await store.put("a", put)
    assert manager.recv(1024).startswith(b"FDSTOREREMOVE=1")
    data, passed, _, _ = socket.recv_fds(manager, 1024, 8)
    assert data.decode().split("\n") == ["FDSTORE=1", "FDPOLL=0", "FDNAME=worker-a"]
    assert [os.fstat(fd).st_ino for fd in passed] == [os.fstat(fd).st_ino for fd in put]
    for fd in (*passed, *put):
        os.close(fd)


def test_what_is_removed_is_named(manager: socket.socket) -> None:
    FdStore(manager.getsockname()).remove("a")
    assert manager.recv(1024) == b"FDSTOREREMOVE=1\nFDNAME=worker-a"


async def test_an_abstract_address_is_one_that_begins_with_a_zero_byte() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0vllamad-test-{os.getpid()}")
        sock.settimeout(5)
        FdStore(f"@vllamad-test-{os.getpid()}").remove("a")
        assert sock.recv(1024).startswith(b"FDSTOREREMOVE=1")


async def test_a_manager_that_is_gone_is_told(tmp_path: Path) -> None:
    store = FdStore(str(tmp_path / "none"))
    store.remove("a")
    with pytest.raises(HostProblem, match="cannot store descriptors: No such file"):
        await store.put("a", [])


READS = """
import json, os
from vllamad.host.systemd.fd_store import stored
from vllamad.host.systemd.notify import inherited_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
kept = stored(os.environ, os.getpid())
sockets = inherited_sockets(os.environ, os.getpid())
print(json.dumps({
    "kept": kept,
    "sockets": {name: [one.fileno() for one in ones] for name, ones in sockets.items()},
    "inheritable": [fd for fds in kept.values() for fd in fds if os.get_inheritable(fd)],
}))
"""


def test_what_was_stored_comes_back_by_name_sockets_of_ours_among_it() -> None:
    """Descriptors 3 to 6: a listening socket between three of ours, one of them a socket too."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as server, open("/dev/null") as file:
        wanted = [ours.fileno(), server.fileno(), file.fileno(), file.fileno()]
        spares = [os.dup(fd) for fd in wanted]
        high = "import fcntl, os; " + "; ".join(
            f"s{n} = fcntl.fcntl({fd}, fcntl.F_DUPFD, 50)" for n, fd in enumerate(spares)
        )
        moved = "; ".join(f"os.dup2(s{n}, {3 + n})" for n in range(len(spares)))
        done = subprocess.run(
            [sys.executable, "-c", f"{high}; {moved}\n{READS}"],
            env=os.environ
            | {"LISTEN_FDS": "4", "LISTEN_FDNAMES": "worker-a:http:worker-a:worker-b"},
            pass_fds=spares,
            capture_output=True,
            text=True,
            check=True,
        )
        for fd in spares:
            os.close(fd)
    assert json.loads(done.stdout) == {
        "kept": {"a": [3, 5], "b": [6]},
        "sockets": {"http": [4]},
        "inheritable": [],
    }
