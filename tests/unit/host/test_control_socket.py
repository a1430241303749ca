"""Promises of binding the control socket and of naming its peers, with real sockets and files."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from vllamad.errors import HostProblem
from vllamad.host.control_socket import Peer, bind_control, gid_of, may_control, peer_of

NO_GROUP = "no-such-group-here"


def peer(uid: int, *groups: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=groups[0], groups=frozenset(groups))


@pytest.mark.parametrize(
    ("who", "group", "allowed"),
    [
        (peer(0, 0), None, True),
        (peer(500, 500), None, True),
        (peer(501, 501), None, False),
        (peer(501, 501), 70, False),
        (peer(501, 501, 70), 70, True),
        (peer(501, 70), 70, True),
        (peer(501, 501, 0), None, False),
    ],
)
def test_root_ourselves_and_the_group_may_control(
    who: Peer, group: int | None, allowed: bool
) -> None:
    assert may_control(who, own_uid=500, group_gid=group) is allowed


def test_the_kernel_names_the_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = peer_of(ours)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert found.groups == {os.getgid(), *os.getgroups()}


class NoPeerGroups:
    """A socket on a kernel that does not know SO_PEERGROUPS."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real

    def getsockopt(self, level: int, option: int, buffersize: int, /) -> bytes:
        if option != socket.SO_PEERCRED:
            raise OSError(92, "Protocol not available")
        return self.real.getsockopt(level, option, buffersize)


def test_without_the_kernels_list_the_user_database_is_asked() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert os.getgid() in peer_of(NoPeerGroups(ours)).groups


def test_the_socket_is_for_owner_and_group_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    with bind_control(path, NO_GROUP):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_the_umask_comes_back(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        bind_control(tmp_path / "s", NO_GROUP).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to any group")
def test_the_group_gets_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind_control(path, "daemon"):
        assert path.stat().st_gid == gid_of("daemon")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    bind_control(path, NO_GROUP).close()  # leaves the file
    with bind_control(path, NO_GROUP), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


def test_a_living_daemon_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind_control(path, NO_GROUP), socket.socket(socket.AF_UNIX) as caller:
        with pytest.raises(HostProblem, match=r"control\.sock: another vllamad answers on it"):
            bind_control(path, NO_GROUP)
        caller.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(HostProblem, match="not a socket"):
        bind_control(path, NO_GROUP)
    assert path.read_text() == "precious"


def test_a_path_too_long_is_explained(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match="cannot bind") as caught:
        bind_control(tmp_path / ("x" * 120), NO_GROUP)
    assert "107 bytes" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostProblem, match="cannot bind"):
        bind_control(tmp_path / "file" / "control.sock", NO_GROUP)
