"""What does a token cost on its way through the gateway, and how late is it? What does a request?

    python -m tests.bench [--quick]

A real vllamad with the scripted engine. Every load goes four ways in turn: straight to the engine,
through a bare relay of the same bytes, and through the gateway on two of its routes. Which
processes these are is in `sides.py`, what a load is in `cases.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from statistics import median

from tests.bench.cases import Result, Row, Streams, Turns
from tests.bench.report import header, others, table
from tests.bench.sides import SIDES, Bench, bench, memory

BUDGET = 50.0  # seconds after which no further round begins; one takes 30 to 50

Results = dict[Row, dict[str, list[Result]]]


def main() -> None:
    """Measure and print; `--quick` only sees that it works."""
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    quick = parser.parse_args().quick
    began, theirs = time.monotonic(), others()
    print(header(), flush=True)
    streams, turns = rows(quick)
    results: Results = {row: {side: [] for side in SIDES} for row in (*streams, *turns)}
    with bench() as there:
        idle = held(there, "VmRSS")
        rounds = measure(there, results, 1 if quick else 3)
        peak = held(there, "VmHWM")
    print("", *table(middles(results, streams), tokens=True), sep="\n")
    print("", *table(middles(results, turns), tokens=False), sep="\n")
    print(f"\nmemory, MiB: {idle} when idle; {peak} at most")
    seconds, theirs = time.monotonic() - began, others() - theirs
    share = theirs / seconds / (os.cpu_count() or 1)
    print(f"medians of {rounds}; {seconds:.0f} s, {share:.0%} of the machine went to other work")


def rows(quick: bool) -> tuple[list[Row], list[Row]]:
    """What is asked for tokens, and what for requests."""
    if quick:
        return [Streams(4, 0.3, paced=True), Streams(4, 0.3, paced=False)], [Turns(1, seconds=0.3)]
    counts = (1, 50, 256)
    paced = [Streams(count, 1.2, paced=True) for count in counts]
    flat = [Streams(count, 0.5, paced=False) for count in counts]
    return [*paced, *flat], [Turns(count, seconds=0.8) for count in (1, 16)]


def measure(there: Bench, results: Results, wanted: int) -> int:
    """Go round and round, so that a bad moment of the machine spoils no row; the rounds made."""
    began = time.monotonic()
    for number in range(wanted):
        if time.monotonic() > began + BUDGET:
            return number
        for row, sides in results.items():
            for side, found in sides.items():
                found.append(row.measure(there, side))
            print(".", end="", file=sys.stderr, flush=True)
    return wanted


def middles(results: Results, rows: list[Row]) -> dict[Row, dict[str, Result]]:
    return {row: {side: middle(found) for side, found in results[row].items()} for row in rows}


def middle(found: list[Result]) -> Result:
    return Result(*(median(values) for values in zip(*found, strict=True)))


def held(there: Bench, what: str) -> str:
    gateway, supervisor = memory(there.gateway, what), memory(there.supervisor, what)
    return f"gateway {gateway:.0f} and supervisor {supervisor:.0f}"


if __name__ == "__main__":
    main()
