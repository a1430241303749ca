"""The listening sockets: those that systemd passed, by name, or our own public ones."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from vllamad.config.listen_address import is_loopback, parse_listen, spell_listen
from vllamad.errors import HostProblem
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent

log = logging.getLogger(__name__)

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
HTTP, CONTROL = "http", "ctl"  # FileDescriptorName= of the units

_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The sockets that systemd opened for us; the caller owns them."""

    http: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None


def bind_http(listen: Sequence[str]) -> list[socket.socket]:
    """Bind every address, or none. Raises HostProblem naming the one that is taken."""
    with ExitStack() as stack:
        bound = [stack.enter_context(sock) for text in listen for sock in _bind(text)]
        stack.pop_all()
        return bound


def given(inherited: Mapping[str, Sequence[socket.socket]]) -> Given:
    """Sort the passed sockets by the names that the units give them, never by their order.

    Raises HostProblem for a socket of the wrong kind for its name. One with another name is closed:
    no request on it would be answered.
    """
    for name, sockets in inherited.items():
        for sock in sockets if name not in (HTTP, CONTROL) else ():
            event(
                log,
                logging.WARNING,
                "ignoring a socket passed by systemd",
                LogEvent.SOCKET_IGNORED,
                socket=name,
                address=address_of(sock),
                expected=f"FileDescriptorName={HTTP} or {CONTROL}",
            )
            sock.close()
    http, control = inherited.get(HTTP, ()), inherited.get(CONTROL, ())
    for sock in (*http, *control):
        if not _accepts(sock):
            raise _useless(sock, "it is not listening", "ListenStream= without Accept=yes")
    if len(control) > 1:
        raise _useless(control[1], f"there is one named {CONTROL} already", "one ListenStream=")
    if control and control[0].family != socket.AF_UNIX:
        raise _useless(control[0], "the control socket must be a Unix socket", "a path")
    return Given(http=tuple(http), control=control[0] if control else None)


def address_of(sock: socket.socket) -> str:
    """The address it listens on, as text."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port = name[:2]
        return spell_listen(host, port)
    if isinstance(name, bytes):  # in no folder
        return "@" + name.decode(errors="replace").lstrip("\0")
    return str(name)


def all_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(
        sock.family == socket.AF_UNIX or is_loopback(sock.getsockname()[0]) for sock in sockets
    )


def _accepts(sock: socket.socket) -> bool:
    stream = sock.type == socket.SOCK_STREAM
    return stream and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _useless(sock: socket.socket, why: str, wanted: str) -> HostProblem:
    return HostProblem(
        f"cannot use the socket {address_of(sock)} passed by systemd: {why}",
        hint=f"its .socket unit needs {wanted}",
    )


def _bind(text: str) -> Iterator[socket.socket]:
    """One socket per address: `localhost` is both 127.0.0.1 and ::1, where there is IPv6."""
    host, port = parse_listen(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise HostProblem(f"cannot listen on {text}: {error.strerror}") from error
    absent: list[HostProblem] = []
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    for family, address in addresses:
        try:
            sock = _bind_one(text, family, address)
        except HostProblem as problem:
            if problem.errno not in _ABSENT:
                raise
            absent.append(problem)
        else:
            yield sock
    if len(absent) == len(addresses):
        raise absent[0]


def _bind_one(text: str, family: int, address: tuple[object, ...]) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _problem(text, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _problem(text, error) from error
    sock.setblocking(False)
    return sock


def _problem(text: str, error: OSError) -> HostProblem:
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = "another program listens there (Ollama?): stop it, or set server.listen"
    return HostProblem(
        f"cannot listen on {text}: {error.strerror}", hint=hint, errno=error.errno or 0
    )
