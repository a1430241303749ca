"""`vllamactl` at a real terminal: what it shows, without what only steers the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import pexpect

from tests.support.daemon import Daemon

PATIENCE = 60.0
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """A person in front of `vllamactl`."""

    def __init__(self, child: pexpect.spawn[str]) -> None:
        self.child = child

    def type(self, text: str) -> None:
        self.child.send(text + "\r")

    def press(self, key: str) -> None:
        """Ctrl and a letter."""
        self.child.sendcontrol(key)

    def reads(self, *texts: str) -> str:
        """Wait until all of these came, one after the other; what is between them."""
        seen = ""
        for text in texts:
            self.child.expect_exact(text)
            seen += shown(str(self.child.before))
        return seen

    def ends(self) -> int:
        """Wait until the command is over; its exit status."""
        self.child.expect(pexpect.EOF)
        self.child.wait()
        assert self.child.exitstatus is not None
        return self.child.exitstatus


def shown(text: str) -> str:
    return _STEERING.sub("", text)


@contextmanager
def at_terminal(
    daemon: Daemon, *words: str, environ: Mapping[str, str] | None = None
) -> Generator[Terminal]:
    """Run `vllamactl` with these words; on leaving it is gone."""
    env = daemon.environment() | {
        "VLLAMAD_CONTROL": str(daemon.run / "control.sock"),
        "XDG_STATE_HOME": str(daemon.home / "person"),
        "TERM": "xterm-256color",
    }
    child = pexpect.spawn(
        sys.executable,
        ["-m", "vllamactl", *words],
        env=env | dict(environ or {}),
        encoding="utf-8",
        timeout=PATIENCE,
        dimensions=(40, 100),
    )
    try:
        yield Terminal(child)
    finally:
        child.close(force=True)
