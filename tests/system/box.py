"""A box: a real systemd with a network of its own, booted in a container in half a second.

Must not know what is tested in it. Needs root and systemd-nspawn; asks no service manager of the
host, so it works where there is none.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

BOOT_LIMIT = 90.0
STOP_LIMIT = 30.0
COMMAND_LIMIT = 120.0
PR_SET_PDEATHSIG, CLONE_NEWNET = 1, 0x40000000
# What a command inside knows of its surroundings: nothing of ours.
INSIDE = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
# Without these there is no awk, and no session of a user.
_NEEDED = ("alternatives", "pam.d", "security", "login.defs", "nsswitch.conf")
PREFIX = "vllamad-box-"
_numbers = count(1)

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a box is made of. Paths: here, and there where they differ."""

    root: Path  # the tree whose /usr is booted; "/" is this machine's own
    read_only: Mapping[Path, str] = field(default_factory=dict[Path, str])
    writable: Mapping[Path, str] = field(default_factory=dict[Path, str])
    over_usr_bin: Path | None = None  # a folder whose files are in /usr/bin as well
    volatile: str = "yes"  # "overlay": what the tree has in /etc and /var is there too
    target: str = "basic.target"


class Box:
    """One booted systemd. `with box:` boots it; on leaving, nothing of it is left."""

    def __init__(self, name: str, plan: Plan, work: Path) -> None:
        self.tree = name
        self.name = f"{PREFIX}{os.getpid()}-{next(_numbers)}-{name}"
        self.work = work
        self.leader = 0
        self._plan = plan
        self._ready = threading.Event()
        self._cgroup = cgroup2() / self.name
        self._console = work / "console"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Box:
        for folder in ("journal", "units"):
            (self.work / folder).mkdir(parents=True, exist_ok=True)
        self._cgroup.mkdir()
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(self.work / "notify"))
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                self._command(),
                env=os.environ
                | {
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "NOTIFY_SOCKET": str(self.work / "notify"),
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._in_the_child,
            )
        threading.Thread(target=self._listen, args=(notify,), daemon=True).start()
        if not self._ready.wait(BOOT_LIMIT):
            self._end()
            raise AssertionError(f"the box did not boot:\n{self.console()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, *words: str, code: int | None = 0, stdin: str = "") -> str:
        """Run a command inside; what it printed. `code` is the status it must end with."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", "--", *words],
            env=INSIDE,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_LIMIT,
        )
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout)
        return done.stdout

    def start(self, *words: str, network_only: bool = True) -> subprocess.Popen[str]:
        """Start a program of this machine in the box's network."""
        which = "-n" if network_only else "-a"
        return subprocess.Popen(
            ["nsenter", "-t", str(self.leader), which, "--", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def path(self, inside: str) -> Path:
        """A file inside, as seen from here."""
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """A connection within the box's network; a socket stays in the network it was made in."""

        def connected() -> socket.socket:
            with open(f"/proc/{self.leader}/ns/net") as network:
                if libc.setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return socket.create_connection((host, port), timeout=COMMAND_LIMIT)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(connected).result()

    def systemctl(self, *words: str, code: int | None = 0) -> str:
        return self.run("systemctl", *words, code=code)

    def show(self, unit: str, prop: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", "-p", prop, unit).strip()

    def journal(self, *words: str) -> str:
        """The journal, all of what was logged before this call included."""
        self.run("journalctl", "--sync", code=None)
        return self.run("journalctl", "--no-pager", "--quiet", *words, code=None)

    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def _command(self) -> list[str]:
        plan = self._plan
        words = [
            "systemd-nspawn", "--quiet", "-D", str(plan.root), f"--volatile={plan.volatile}",
            "--boot", "--register=no", "--keep-unit", "-M", self.name, "--notify-ready=yes",
            "--console=pipe", "--kill-signal=SIGRTMIN+3", "--private-network",
            "--resolv-conf=off", "--timezone=off",
            f"--bind={self.work}/units:/run/systemd/system",
            f"--bind={self.work}/journal:/var/log/journal",
        ]  # fmt: skip
        words += [f"--bind-ro={one}:/etc/{one.name}" for one in self._etc()]
        words += [f"--bind-ro={here}:{there}" for here, there in plan.read_only.items()]
        words += [f"--bind={here}:{there}" for here, there in plan.writable.items()]
        if plan.over_usr_bin:
            words.append(f"--overlay-ro=+/usr/bin:{plan.over_usr_bin}:/usr/bin")
        # What follows is the kernel's command line for a container.
        return [
            *words, "--", "systemd.condition-first-boot=no", "systemd.firstboot=no",
            f"systemd.unit={plan.target}", "systemd.mask=systemd-machine-id-commit.service",
        ]  # fmt: skip

    def _etc(self) -> list[Path]:
        """Copies of what an empty /etc lacks: nspawn hides the tree it boots from itself."""
        copies = self.work / "etc"
        if self._plan.volatile == "yes" and not copies.exists():
            copies.mkdir()
            for name in _NEEDED:
                source = self._plan.root / "etc" / name
                if source.is_dir():
                    shutil.copytree(source, copies / name, symlinks=True)
                elif source.exists():
                    shutil.copy2(source, copies / name)
        return sorted(copies.iterdir()) if copies.exists() else []

    def _in_the_child(self) -> None:
        # Whatever ends these tests, the box is powered off; with a cgroup of its own, all that is
        # in it can be found.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        (self._cgroup / "cgroup.procs").write_text("0")

    def _listen(self, notify: socket.socket) -> None:
        """Read for as long as the box lives: a full queue would block nspawn for good."""
        with notify:
            while True:
                lines = notify.recv(65536).decode(errors="replace").splitlines()
                for line in lines:
                    name, _, value = line.partition("=")
                    if name == "X_NSPAWN_LEADER_PID":
                        self.leader = int(value)
                    elif line == "READY=1" and self.leader:
                        self._ready.set()
                    elif name == "X_VLLAMAD_BOX_ENDED":
                        return

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()  # to nspawn this means: power off, in order
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            # Killing nspawn alone would leave the box running without it.
            if self.leader:
                os.kill(self.leader, signal.SIGKILL)
            self._process.kill()
            self._process.wait(STOP_LIMIT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"X_VLLAMAD_BOX_ENDED=1", str(self.work / "notify"))
        sweep_folders(self.name)


def sweep() -> None:
    """End what boxes of killed test runs left behind."""
    for folder in cgroup2().glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            kill = folder / "cgroup.kill"
            if kill.exists():
                kill.write_text("1")
            sweep_folders(folder.name)


def sweep_folders(name: str) -> None:
    """Remove the empty cgroups, and what nspawn keeps for a box while it runs."""
    places = [cgroup2() / name, *Path("/sys/fs/cgroup").glob(f"*/{name}")]
    places.append(Path("/run/systemd/nspawn/propagate") / name)
    for place in dict.fromkeys(places):
        for folder, _, _ in os.walk(place, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass  # a process is still on its way out; the next sweep comes by


def cgroup2() -> Path:
    """Where the unified hierarchy is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return Path(left.split()[4])
    raise AssertionError("cannot find a mount of cgroup2")


def missing(programs: Sequence[str]) -> list[str]:
    """Those of `programs` that are not there."""
    folders = os.environ.get("PATH", "").split(":")
    return [one for one in programs if not any((Path(d) / one).exists() for d in folders)]
