"""The public listening sockets, where systemd did not hand them over."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from vllamad.config.listen import parse_listen
from vllamad.errors import HostProblem

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn


def bind_http(listen: Sequence[str]) -> list[socket.socket]:
    """Bind every address, or none. Raises HostProblem naming the one that is taken."""
    bound: list[socket.socket] = []
    try:
        for text in listen:
            bound += _bind(text)
    except HostProblem:
        for sock in bound:
            sock.close()
        raise
    return bound


def all_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(
        sock.family == socket.AF_UNIX or ip_address(sock.getsockname()[0]).is_loopback
        for sock in sockets
    )


def _bind(text: str) -> list[socket.socket]:
    host, port = parse_listen(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise HostProblem(f"cannot listen on {text}: {error.strerror}") from error
    # One socket per address family: `localhost` is both 127.0.0.1 and ::1.
    return [_bind_one(text, family, address) for family, _, _, _, address in dict.fromkeys(found)]


def _bind_one(text: str, family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "another program listens there (Ollama?): stop it, or set server.listen"
        raise HostProblem(
            f"cannot listen on {text}: {error.strerror}", hint=hint, errno=error.errno or 0
        ) from error
    sock.setblocking(False)
    return sock
