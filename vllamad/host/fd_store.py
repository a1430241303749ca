"""Descriptors that systemd keeps for us while we are gone: see FileDescriptorStoreMax=.

It gives them back after a crash and a restart, and closes them once the service is stopped or has
failed for good. What they mean is not known here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

import trio

from vllamad.errors import HostProblem
from vllamad.host.systemd import STORED, passed_descriptors

_PATIENCE = 2.0  # seconds the service manager may take to read


class FdStore:
    """Where descriptors are put under a name; several may share one."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    async def put(self, name: str, descriptors: Sequence[int]) -> None:
        """Have these kept, in place of others of that name. Raises HostProblem.

        Whether there is room for them the service manager does not say.
        """
        # FDPOLL=0: even the end of what a descriptor stands for is for us to find.
        state = f"FDSTORE=1\nFDPOLL=0\nFDNAME={STORED}{name}"
        self.remove(name)
        try:
            await trio.to_thread.run_sync(self._send, state, descriptors, _PATIENCE)
        except OSError as problem:
            raise HostProblem(f"cannot store descriptors: {problem.strerror}") from problem

    def remove(self, name: str) -> None:
        """Have those of that name closed. One that is lost is found, and removed, another time."""
        try:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={STORED}{name}", (), 0)
        except OSError:
            pass

    def _send(self, state: str, descriptors: Sequence[int], patience: float) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience)
            sock.connect(self._address)
            socket.send_fds(sock, [state.encode()], descriptors)


def open_store(environ: Mapping[str, str]) -> FdStore | None:
    """The store of the service manager that started us, if one did."""
    address = environ.get("NOTIFY_SOCKET", "")
    return FdStore(address) if address.startswith(("/", "@")) else None


def stored(environ: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """What an earlier process of ours has put, by name; the caller owns them. To be called once."""
    found: dict[str, list[int]] = {}
    for name, descriptor in passed_descriptors(environ, pid):
        if name.startswith(STORED):
            found.setdefault(name.removeprefix(STORED), []).append(descriptor)
    return found


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
