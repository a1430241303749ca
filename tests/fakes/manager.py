"""What systemd is to a service: hears its notifications, keeps its descriptors, starts it again."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.daemon import PATIENCE, Daemon, fake_config, free_port, until

# What lies between fork and exec: the descriptors become 3 and up, and their names are told.
STARTER = """
import fcntl, os, sys
names, numbers, *command = sys.argv[1:]
high = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 100) for one in numbers.split()]
for place, one in enumerate(high):
    os.dup2(one, 3 + place)
    os.close(one)
os.closerange(3 + len(high), 100)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high))}
os.environ |= {"LISTEN_FDNAMES": names}
os.execv(command[0], command)
"""


class Manager:
    """The service manager of one daemon; `stored` are the descriptors it keeps, by their names."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.stored: dict[str, list[int]] = {}
        self.ready = threading.Event()
        self.heard: list[str] = []  # every message, in turn
        self._address = daemon.run / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def start(self, environ: Mapping[str, str] | None = None, words: Sequence[str] = ()) -> None:
        """Start the daemon with what it has stored, and wait until it is ready."""
        self.begin(environ, words)
        daemon = self.daemon
        until(lambda: self.ready.is_set() or daemon.process_ended())
        assert not daemon.process_ended(), daemon.text()

    def begin(self, environ: Mapping[str, str] | None = None, words: Sequence[str] = ()) -> None:
        """Start it, and wait for nothing."""
        self.ready.clear()
        daemon = self.daemon
        pairs = [(name, one) for name, ones in self.stored.items() for one in ones]
        told = [":".join(name for name, _ in pairs), " ".join(str(one) for _, one in pairs)]
        with daemon.log.open("ab") as output:
            daemon.process = subprocess.Popen(
                [sys.executable, "-c", STARTER, *told, sys.executable, "-m", "vllamad", *words],
                cwd=daemon.home,
                env=daemon.environment()
                | {"NOTIFY_SOCKET": str(self._address)}
                | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                pass_fds=[one for _, one in pairs],
            )

    def restart(self, number: int = signal.SIGTERM, words: Sequence[str] = ()) -> None:
        self.daemon.stop(number)
        self.start(words=words)

    def empty(self) -> None:
        """What systemd does once the service is stopped, or has failed, for good."""
        for name in [*self.stored]:
            self._remove(name)

    def close(self) -> None:
        """End the daemon and all that hangs on it."""
        if self.daemon.process is not None and not self.daemon.process_ended():
            self.daemon.stop(signal.SIGKILL)
        os.close(self._end)
        self._thread.join(PATIENCE)
        self.empty()
        os.close(self._over)
        self._socket.close()

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._over], [], [])
            if self._over in ready:
                return
            data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 16)
            self.heard.append(data.decode())
            pairs = (line.partition("=") for line in data.decode().splitlines())
            told = {name: value for name, _, value in pairs}
            if "READY" in told:
                self.ready.set()
            if "FDSTORE" in told:
                assert told["FDPOLL"] == "0"
                # It gives no order, and ours is the other way round.
                self.stored.setdefault(told["FDNAME"], []).extend(reversed(descriptors))
            elif "FDSTOREREMOVE" in told:
                self._remove(told["FDNAME"])
            elif "BARRIER" in told:
                for one in descriptors:
                    os.close(one)

    def _remove(self, name: str) -> None:
        for one in self.stored.pop(name, ()):
            os.close(one)


def folders(run: Path) -> list[str]:
    """The folders of workers that there are."""
    return [path.name for path in (run / "w").iterdir()]


@contextmanager
def managed_daemon(home: Path, config: str = "") -> Generator[Manager]:
    """A daemon that is not started yet, and its manager."""
    (home / "vllamad.toml").write_text(config or fake_config())
    with TemporaryDirectory(prefix="vt-", dir="/tmp") as run:
        manager = Manager(Daemon(home, free_port(), Path(run)))
        try:
            yield manager
        except BaseException:
            print(manager.daemon.text())
            raise
        finally:
            manager.daemon.http.close()
            manager.close()


def hold(manager: Manager, name: str, family: int, address: object) -> object:
    """Have the manager listen there; the address that it became."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(4096)
        manager.stored.setdefault(name, []).append(sock.dup().detach())
        return sock.getsockname()


def hold_both(manager: Manager) -> None:
    hold(manager, "http", socket.AF_INET, ("127.0.0.1", manager.daemon.port))
    hold(manager, "ctl", socket.AF_UNIX, str(manager.daemon.run / "control.sock"))
