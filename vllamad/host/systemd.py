"""What systemd wants to hear from a service and hands to it: notify, watchdog, listening sockets.

Without systemd everything here does nothing. It must not know what the daemon does.
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
"""What a worker must never inherit: with these it could speak for the daemon."""

STORED = "worker-"
"""How the names of descriptors begin that are ours, stored by `host/fd_store.py`."""

_FIRST_FD = 3  # sd_listen_fds(3)
_STATUS_LIMIT = 512


class _Notify(Protocol):
    """The part of sdnotify's notifier we use; the package has no types."""

    socket: socket.socket | None

    def notify(self, state: str) -> None: ...


class Notifier:
    """Tells the service manager how we fare; never blocks, never raises.

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
        """The API and the control socket answer; or: a reload is done."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`. Other than ASCII becomes "?": systemd drops it all."""
        plain = text.encode("ascii", "replace").decode()[:_STATUS_LIMIT]
        self._send("STATUS=" + "".join(char if char.isprintable() else " " for char in plain))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The loop is alive and has checked itself."""
        self._send("WATCHDOG=1")

    def trigger(self) -> None:
        """We cannot go on: have us ended and restarted as if the watchdog had not been fed."""
        self._send("WATCHDOG=trigger")

    def errno(self, number: int) -> None:
        """Why the daemon is about to fail, as an errno."""
        self._send(f"ERRNO={number}")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much more time, from now, to start or to stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def barrier(self, patience: float = 5.0) -> bool:
        """Wait until the manager has read all that was said; False: it has not in `patience` s.

        For the moment before the end: what is read after it may belong to no service any more.
        """
        if self._socket is None:
            return True
        read, write = os.pipe()
        try:
            try:
                socket.send_fds(self._socket, [b"BARRIER=1"], [write])
            finally:
                os.close(write)  # the manager's is the last one: it closes it when it is there
            poll = select.poll()
            poll.register(read, 0)  # its end is told in any case
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

    sd_watchdog_enabled(3): without WATCHDOG_PID it is for whoever sees it.
    """
    microseconds = _number(environ.get("WATCHDOG_USEC", ""))
    if not microseconds or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return microseconds / 1e6


def passed_descriptors(environ: Mapping[str, str], pid: int) -> list[tuple[str, int]]:
    """What systemd passed to us, with the names: sd_listen_fds_with_names(3)."""
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

    To be called once; what we had it store for us, and what is no socket, is left alone.
    """
    found: dict[str, list[socket.socket]] = {}
    for name, descriptor in passed_descriptors(environ, pid):
        if name.startswith(STORED):
            continue
        try:
            # By itself socket.socket finds out family and type.
            one = socket.socket(fileno=descriptor)
        except OSError:
            continue
        found.setdefault(name, []).append(one)
    return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
