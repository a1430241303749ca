"""The public listening sockets, where systemd did not hand them over."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from vllamad.config.listen import is_loopback, parse_listen
from vllamad.errors import HostProblem

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn

_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def bind_http(listen: Sequence[str]) -> list[socket.socket]:
    """Bind every address, or none. Raises HostProblem naming the one that is taken."""
    with ExitStack() as stack:
        bound = [stack.enter_context(sock) for text in listen for sock in _bind(text)]
        stack.pop_all()
        return bound


def all_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(
        sock.family == socket.AF_UNIX or is_loopback(sock.getsockname()[0]) for sock in sockets
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
