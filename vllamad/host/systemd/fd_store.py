"""systemd's descriptor store: it holds descriptors while the daemon restarts.

See FileDescriptorStoreMax=. systemd passes them to the next process after a crash or a restart, and
closes them once the service is stopped or has failed for good. Their meaning is not known here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence

import trio

from vllamad.errors import HostProblem
from vllamad.host.systemd.notify import STORED, passed_descriptors

_PATIENCE = 2.0  # seconds the service manager may take to read


class FdStore:
    """A store of descriptors by name; several may share one."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    async def put(self, name: str, descriptors: Sequence[int]) -> None:
        """Store descriptors in place of others of that name. Raises HostProblem.

        systemd does not report whether there was room for them.
        """
        # FDPOLL=0: systemd must not drop a descriptor at its end of file; we check it ourselves.
        state = f"FDSTORE=1\nFDPOLL=0\nFDNAME={STORED}{name}"
        self.remove(name)
        try:
            await trio.to_thread.run_sync(self._send, state, descriptors, _PATIENCE)
        except OSError as problem:
            raise HostProblem(f"cannot store descriptors: {problem.strerror}") from problem

    def remove(self, name: str) -> None:
        """Remove the descriptors of that name. A lost message is made up for at the next start."""
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
    """The descriptors a previous daemon stored, by name; the caller owns them. Call it once."""
    found: dict[str, list[int]] = {}
    for name, descriptor in passed_descriptors(environ, pid):
        if name.startswith(STORED):
            found.setdefault(name.removeprefix(STORED), []).append(descriptor)
    return found


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
