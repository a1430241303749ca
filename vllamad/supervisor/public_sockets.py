"""The sockets of a daemon, held for as long as it serves: passed by systemd, or bound here.

`host/listeners.py` and `host/control_socket.py` know how a socket is bound; the rules of the
configuration about them are here.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from vllamad.config.listen_address import unguarded
from vllamad.config.settings import Settings
from vllamad.errors import ConfigError
from vllamad.host.control_socket import bind_control
from vllamad.host.listeners import address_of, all_loopback, bind_http, given

Inherited = Mapping[str, Sequence[socket.socket]]


@contextmanager
def open_sockets(
    settings: Settings, inherited: Inherited
) -> Generator[tuple[socket.socket, list[socket.socket]]]:
    """The control socket and the public ones: systemd's, or bound here and unlinked at the end."""
    passed = given(inherited)
    with ExitStack() as stack:
        control = passed.control
        if control is None:
            control = bind_control(settings.paths.control, settings.control.group)
            stack.callback(settings.paths.control.unlink, missing_ok=True)
        stack.enter_context(control)
        http = list(passed.http) or bind_http(settings.server.listen)
        for sock in http:
            stack.enter_context(sock)
        refuse_unguarded(settings, http)
        yield control, http


def refuse_unguarded(settings: Settings, http: Sequence[socket.socket]) -> None:
    """Raise ConfigError for a passed socket whose address the configuration would refuse."""
    public = [sock for sock in http if not all_loopback([sock])]
    if public and not (settings.api_keys or settings.server.allow_unauthenticated):
        raise ConfigError((f"a socket passed by systemd: {unguarded(address_of(public[0]))}",))


def close_own(http: Sequence[socket.socket], inherited: Inherited) -> None:
    """Refuse new connections at once; systemd's sockets queue them for the next daemon."""
    if not inherited.get("http"):
        for sock in http:
            sock.close()
