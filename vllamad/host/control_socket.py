"""Binds the control socket, and asks the kernel for the identity of its peers.

The requests on it are not known here.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vllamad.errors import HostProblem

_SO_PEERGROUPS = 59  # socket(7); not in Python's socket module
_PEER_GROUPS_ROOM = 1024  # bytes, the most getsockopt takes from Python: 256 groups
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_BACKLOG = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end, as the kernel names it; `groups` includes `gid`."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


def may_control(peer: Peer, *, own_uid: int, group_gid: int | None) -> bool:
    """Whether `peer` may read and give orders: root, ourselves, or a member of the group."""
    return peer.uid in (0, own_uid) or (group_gid is not None and group_gid in peer.groups)


def gid_of(group: str) -> int | None:
    """The number of a group, None when there is no such group on this machine."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


class _HasOptions(Protocol):
    """A socket of the standard library or of trio."""

    def getsockopt(self, level: int, option: int, buffersize: int, /) -> bytes: ...


def peer_of(sock: _HasOptions) -> Peer:
    """Ask the kernel who connected (SO_PEERCRED, SO_PEERGROUPS: unix(7)). Raises OSError."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid=pid, uid=uid, gid=gid, groups=frozenset({gid, *_peer_groups(sock, uid, gid)}))


def _peer_groups(sock: _HasOptions, uid: int, gid: int) -> list[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PEER_GROUPS_ROOM)
        return [group for (group,) in struct.iter_unpack("i", raw)]
    except OSError:  # a kernel before 4.13, or more groups than fit
        pass
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []


def bind_control(path: Path, group: str) -> socket.socket:
    """Bind `path` with mode 0660 for `group` and listen on it; the caller unlinks it at the end.

    A socket file without a listener is replaced. Raises HostProblem when another process
    answers, when something else is in the way, or when the machine says no.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with _locked(path.parent):
            _clear_the_way(path)
            return _bound(path, group)
    except OSError as error:
        raise HostProblem(
            f"cannot bind {path}: {error.strerror or error}", hint=_advice(error)
        ) from error


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold a lock on `folder`: only one vllamad at a time may replace a stale socket."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _clear_the_way(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostProblem(
                f"cannot bind {path}: a file that is not a socket is in the way",
                hint="move that file away, or set another path for the control socket",
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)  # a full backlog blocks, and shows that there is a listener
        refused = caller.connect_ex(str(path))
    if refused != errno.ECONNREFUSED:
        raise HostProblem(
            f"cannot bind {path}: another vllamad answers on it",
            hint="stop it first, or set another path for the control socket",
        )
    path.unlink()


def _bound(path: Path, group: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        sock.bind(str(path))
        _give_to(path, gid_of(group))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(old)
    return sock


def _give_to(path: Path, gid: int | None) -> None:
    if gid is None:
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        # A daemon of an ordinary user who is no member: it answers that user and root only.
        pass


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "run vllamad as a user that may write there, or set $VLLAMAD_HOME"
        case None:  # Python's own "AF_UNIX path too long"
            return "a socket's path has at most 107 bytes: set a shorter $VLLAMAD_HOME"
        case _:
            return ""
