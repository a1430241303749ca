"""One row of the table: a load, and what is read off it on one side."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.sides import FLAT, PACED, Bench, Way, spent


class Result(NamedTuple):
    """Tokens or requests a second; CPU seconds for each of them; milliseconds of delay."""

    speed: float
    relay: float
    supervisor: float
    p50: float
    p99: float


class Mark(NamedTuple):
    """What the clients say of themselves at one moment, and the CPU seconds spent by then."""

    said: dict[str, float]
    relay: float
    supervisor: float


@dataclass(frozen=True, slots=True)
class Streams:
    """So many streams at once, none of which ends; paced, or as fast as they come."""

    count: int
    seconds: float
    paced: bool

    @property
    def name(self) -> str:
        return f"{'paced' if self.paced else 'flat out'}, {self.count}"

    def measure(self, there: Bench, side: str) -> Result:
        model = PACED if self.paced else FLAT
        return run("tests.bench.load", there.way(side, model), model, self, "tokens")


@dataclass(frozen=True, slots=True)
class Turns:
    """Requests for one token: each client asks again once it is answered."""

    count: int
    seconds: float

    @property
    def name(self) -> str:
        return "one by one" if self.count == 1 else f"{self.count} at once"

    def measure(self, there: Bench, side: str) -> Result:
        return run("tests.bench.turns", there.way(side, FLAT), FLAT, self, "requests")


Row = Streams | Turns


def run(module: str, way: Way, model: str, row: Row, what: str) -> Result:
    """Run the clients to their end; the CPU of the processes between is taken at each mark."""
    words = (way.address, way.route, model, str(row.count), str(row.seconds))
    argv = [sys.executable, "-m", module, *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as clients:
        assert clients.stdout is not None
        marks = [
            Mark(json.loads(line), spent(way.relay), spent(way.supervisor))
            for line in clients.stdout
        ]
    if clients.returncode:
        raise SystemExit(f"the clients failed: {' '.join(argv)}")
    begun, done = marks
    count = done.said[what] - begun.said[what]
    return Result(
        speed=count / (done.said["time"] - begun.said["time"]),
        relay=(done.relay - begun.relay) / count,
        supervisor=(done.supervisor - begun.supervisor) / count,
        p50=done.said["p50"],
        p99=done.said["p99"],
    )
