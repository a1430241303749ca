"""systemd's side of a service: notifications, watchdog, passed sockets.

sdnotify finds the socket and sends; typed messages, a send that never blocks and the barrier are
added here, in one place. Without systemd everything here does nothing.
"""

from __future__ import annotations

import os
import select
import socket
import time
import warnings
from collections.abc import Mapping
from typing import Protocol

import sdnotify

PRIVATE_VARIABLES = frozenset(
    {
        "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
        "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE",
        "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "INVOCATION_ID", "SYSTEMD_EXEC_PID",
        "MAINPID", "MANAGERPID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE",
    }
)  # fmt: skip
"""Variables that a worker must never inherit: with these it could act as the daemon."""

STORED = "worker-"
"""The prefix of the names of descriptors that `host/systemd/fd_store.py` stores."""

_FIRST_FD = 3  # sd_listen_fds(3)
_STATUS_LIMIT = 512


class _Notify(Protocol):
    """The part of sdnotify's notifier we use; the package has no types."""

    socket: socket.socket | None

    def notify(self, state: str) -> None: ...


class Notifier:
    """Sends notifications to the service manager; never blocks, never raises.

    Without NOTIFY_SOCKET in `environ` there is no manager; where there is one, sdnotify takes its
    address from the process's own environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._notifier: _Notify | None = None
        if environ.get("NOTIFY_SOCKET"):
            with warnings.catch_warnings():
                # When it cannot connect, sdnotify leaves a socket unclosed.
                warnings.simplefilter("ignore", ResourceWarning)
                self._notifier = sdnotify.SystemdNotifier()
        self._socket = self._notifier.socket if self._notifier else None
        if self._socket:
            # A manager that does not read must not stop the loop: sd_notify may lose a message.
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Report that the API and the control socket answer, or that a reload is done."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Send a line for `systemctl status`, in ASCII: systemd drops a line with anything else."""
        plain = text.encode("ascii", "replace").decode()[:_STATUS_LIMIT]
        self._send("STATUS=" + "".join(char if char.isprintable() else " " for char in plain))

    def reloading(self) -> None:
        """Report the start of a reload; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Feed the watchdog: the event loop is alive and has checked the sockets."""
        self._send("WATCHDOG=1")

    def trigger(self) -> None:
        """Let systemd abort and restart the daemon as if the watchdog had not been fed."""
        self._send("WATCHDOG=trigger")

    def errno(self, number: int) -> None:
        """Report the errno of the failure that ends the daemon."""
        self._send(f"ERRNO={number}")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the start or stop timeout by `seconds`, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def barrier(self, patience: float = 5.0) -> bool:
        """Wait until the manager has read all messages; False if it has not in `patience` seconds.

        Call it before the process ends: systemd ignores messages of processes that are gone.
        """
        if self._socket is None:
            return True
        read, write = os.pipe()
        try:
            try:
                socket.send_fds(self._socket, [b"BARRIER=1"], [write])
            finally:
                os.close(write)  # the manager closes the last copy once it has read the message
            poll = select.poll()
            poll.register(read, 0)  # poll reports a hangup without being asked to
            return bool(poll.poll(patience * 1000))
        except OSError:
            return False
        finally:
            os.close(read)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _send(self, state: str) -> None:
        if self._notifier:
            self._notifier.notify(state)


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which `Notifier.watchdog` must be called, None for no watchdog.

    sd_watchdog_enabled(3): without WATCHDOG_PID it applies to every process that sees it.
    """
    microseconds = _number(environ.get("WATCHDOG_USEC", ""))
    if not microseconds or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return microseconds / 1e6


def passed_descriptors(environ: Mapping[str, str], pid: int) -> list[tuple[str, int]]:
    """The descriptors systemd passed, with their names: sd_listen_fds_with_names(3)."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: list[tuple[str, int]] = []
    for index in range(_number(environ.get("LISTEN_FDS", ""))):
        os.set_inheritable(_FIRST_FD + index, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.append((name, _FIRST_FD + index))
    return found


def inherited_sockets(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """The listening sockets systemd opened for us, by FileDescriptorName=; the caller owns them.

    Call it once. Descriptors of our store, and those that are not sockets, are left alone.
    """
    found: dict[str, list[socket.socket]] = {}
    for name, descriptor in passed_descriptors(environ, pid):
        if name.startswith(STORED):
            continue
        try:
            # socket.socket finds out family and type.
            sock = socket.socket(fileno=descriptor)
        except OSError:
            continue
        found.setdefault(name, []).append(sock)
    return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
