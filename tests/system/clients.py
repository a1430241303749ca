"""Run `load.py` in a box's network beside a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.system.box import Box
from tests.system.environment import ROOT

END_LIMIT = 60.0


@dataclass(kw_only=True)
class Outcomes:
    """How the requests ended, by a word for each way; known when the clients have stopped."""

    counts: Counter[str] = field(default_factory=Counter[str])
    slowest: float = 0.0  # seconds until the latest good answer

    @property
    def answered(self) -> int:
        return self.counts["answered"]

    @property
    def failed(self) -> dict[str, int]:
        return {how: count for how, count in self.counts.items() if how != "answered"}

    def __str__(self) -> str:
        return f"{self.answered} answered, {self.failed or 'none'} failed, {self.slowest} s at most"


@contextmanager
def clients(box: Box, count: int = 50, *, streams: int = 0) -> Generator[Outcomes]:
    """`count` clients ask from here to the end of the block, `streams` of them for chats."""
    outcomes = Outcomes()
    # fmt: off
    program = [sys.executable, "-m", "tests.system.load",
               "--clients", str(count), "--streams", str(streams)]
    # fmt: on
    with subprocess.Popen(
        ["nsenter", "-t", str(box.leader), "-n", "--", *program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "asking\n"
            yield outcomes
            said, _ = process.communicate("", timeout=END_LIMIT)
        finally:
            process.kill()
    told = json.loads(said)
    outcomes.counts.update(told["outcomes"])
    outcomes.slowest = told["slowest"]
    print(outcomes)
