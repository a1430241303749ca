"""How fast is the real engine on this CPU, beside another tree of ours?

    python -m tests.bench.cpu --landed DIR [--rounds 3] [--stand-in] [--quick]

Real daemons of both trees answer /api/chat with smollm2:135m, one after the other and round after
round, so that a bad moment of the machine is not one side's: 1, 5 and 20 clients at once, 96 tokens
each, temperature 0. Beside the tree in DIR as it is and ours as it is: that tree with one thing of
ours alone, the number type, the threads, the OpenMP library. DIR is a checkout of the other tree:
`git worktree add --detach DIR COMMIT`.

`--stand-in` has the engine believe that this CPU has no bfloat16 (`standin/`): a stand-in for such
a machine, not one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.report import header, others
from tests.support.daemon import ROOT, Daemon, daemon
from vllamad.core.cpu import thread_count
from vllamad.host.machine import devices
from vllamad.host.machine.amx import cpu_flags
from vllamad.host.processes.process_tree import pss
from vllamad.runtimes.installed_runtimes import current_name, read_runtime

MODEL, TOKENS, AT_ONCE = "smollm2:135m", 96, (1, 5, 20)
STAND_IN = Path(__file__).with_name("standin")
NO_BFLOAT16 = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
LANDED, TOGETHER = "landed", "ours"


@dataclass(frozen=True, slots=True)
class Side:
    """One tree with what differs from its defaults, as lines of [engine.args] and [engine.env]."""

    name: str
    tree: Path
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What was measured of one side, round by round; seconds and bytes."""

    speeds: dict[int, list[float]] = field(default_factory=dict)  # tokens a second, by clients
    first: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    how: str = ""  # as the daemon explains it; the other tree explains nothing
    short: int = 0  # answers that ended before their last token

    def speed(self, clients: int) -> float:
        return median(self.speeds[clients])


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.cpu", description=__doc__)
    parser.add_argument("--landed", type=Path, required=True, help="a checkout of the other tree")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stand-in", action="store_true", help="as if without bfloat16")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    asked = parser.parse_args()
    prepared = Path(os.environ.get("VLLAMAD_HOME") or Path.home() / ".cache" / "vllamad-dev")
    at_once = AT_ONCE[:1] if asked.quick else AT_ONCE
    chosen = list(sides(asked.landed.resolve(), prepared))
    chosen = [chosen[0], chosen[-1]] if asked.quick else chosen
    began, theirs = time.monotonic(), others()
    print(header(), machine(stand_in=asked.stand_in), sep="\n", flush=True)
    found = {side.name: Found() for side in chosen}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for number in range(1 if asked.quick else asked.rounds):
            for side in chosen:
                home = Path(scratch) / f"{number}-{side.name.replace(' ', '-')}"
                home.mkdir()
                told = config(side, prepared, Path(scratch) / "cache", stand_in=asked.stand_in)
                measure(side, home, told, found[side.name], at_once, stand_in=asked.stand_in)
                print(".", end="", file=sys.stderr, flush=True)
    print("", *table(found, at_once), sep="\n")
    if not asked.quick:
        print("", *verdict(found, has_bfloat16=has_bfloat16() and not asked.stand_in), sep="\n")
    seconds, theirs = time.monotonic() - began, others() - theirs
    share = theirs / seconds / (os.cpu_count() or 1)
    print(f"\n{seconds:.0f} s; {share:.0%} of the machine went to other work")


def sides(landed: Path, prepared: Path) -> Iterator[Side]:
    """The other tree, that tree with each thing alone, and ours."""
    runtimes = prepared / "state" / "runtimes"
    library = (
        Path(read_runtime(runtimes, current_name(runtimes)).python).parents[1] / "lib/libiomp5.so"
    )
    count = str(thread_count(devices.cores(), 1))
    yield Side(LANDED, landed)
    yield Side("float32 alone", landed, args={"dtype": "float32"})
    yield Side(f"{count} threads alone", landed, env={"OMP_NUM_THREADS": count})
    if library.is_file():
        yield Side("libiomp5 alone", landed, env={"LD_PRELOAD": str(library)})
    yield Side(TOGETHER, ROOT)


def config(side: Side, prepared: Path, cache: Path, *, stand_in: bool) -> str:
    # What is measured of a stand-in must not be believed of the machine: a cache of our own.
    env = side.env | (NO_BFLOAT16 | {"PYTHONPATH": str(STAND_IN)} if stand_in else {})
    lines = ["[paths]", f'state = "{prepared}/state"', f'cache = "{cache}"']
    for section, values in (("args", side.args), ("env", env)):
        lines += [f"[engine.{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    return "\n".join(lines) + "\n"


def measure(
    side: Side, home: Path, told: str, found: Found, at_once: Sequence[int], *, stand_in: bool
) -> None:
    """One round of one side: a fresh daemon, a worker, and every number of clients."""
    environ = {"PYTHONPATH": str(side.tree)} | (NO_BFLOAT16 if stand_in else {})
    with daemon(home, config=told, environ=environ) as one:
        one.http.timeout = 300.0
        ask(one, 0, tokens=1)  # loads it
        talk(one, max(at_once), tokens=8)  # and warms it up
        for clients in at_once:
            answers, seconds = talk(one, clients)
            speed = sum(answer.tokens for answer in answers) / seconds
            found.speeds.setdefault(clients, []).append(speed)
            found.short += sum(answer.tokens < TOKENS for answer in answers)
            if clients == 1:
                found.first.append(answers[0].first)
        found.memory.append(sum(pss(process.pid) for process in one.processes()))
        (worker,) = one.workers()
        found.how = f"{worker.get('dtype', '')} x {worker.get('threads', '')}".strip(" x")


@dataclass(frozen=True, slots=True)
class Answer:
    first: float  # seconds until the first token
    tokens: int


def talk(one: Daemon, clients: int, tokens: int = TOKENS) -> tuple[list[Answer], float]:
    """So many clients at once; their answers, and the seconds until the last was over."""
    with ThreadPoolExecutor(clients) as pool:
        began = time.monotonic()
        asked = [pool.submit(ask, one, number, tokens) for number in range(clients)]
        answers = [future.result() for future in asked]
        return answers, time.monotonic() - began


def ask(one: Daemon, number: int, tokens: int = TOKENS) -> Answer:
    """One question that takes long to answer, other than the question of any other client."""
    # The model never ends this one early: with 20 clients each answer had 96 tokens.
    words = f"Client {number}. Tell a very long story about a ship, a storm and an island, in great"
    words += " detail."
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": words}],
        "options": {"temperature": 0, "num_predict": tokens},
    }
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=600)
    began, first = time.monotonic(), 0.0
    try:
        connection.request("POST", "/api/chat", json.dumps(body))
        response = connection.getresponse()
        for line in response:
            first = first or time.monotonic() - began
            said = json.loads(line)
            if "error" in said:
                raise SystemExit(f"cannot measure: {said['error']}")
            if said["done"]:
                return Answer(first, said["eval_count"])
    finally:
        connection.close()
    raise SystemExit("cannot measure: an answer broke off")


def has_bfloat16() -> bool:
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def machine(*, stand_in: bool) -> str:
    """What the numbers hold for."""
    flags = {name: name in cpu_flags() for name in ("avx512f", "avx512_bf16", "amx_bf16")}
    told = ", ".join(f"{'' if there else 'no '}{name}" for name, there in flags.items())
    name = devices.cpu_key().rpartition(" ")[0]
    more = "; STAND-IN: the engine is told that there is no bfloat16" if stand_in else ""
    return f"{name}: {told}; {devices.cores()} cores for a worker{more}"


def table(found: dict[str, Found], at_once: Sequence[int]) -> Iterator[str]:
    """Medians, and beside each how it compares with the other tree."""
    base = found[LANDED]
    heads = "".join(f"{f'{clients} at once':>20}" for clients in at_once)
    yield f"{'':<18}{'computed in':<16}{heads}{'first token, ms':>20}{'memory, MiB':>18}"
    for name, one in found.items():
        cells = "".join(
            _cell(one.speed(clients), base.speed(clients), ".1f", 20) for clients in at_once
        )
        cells += _cell(1e3 * median(one.first), 1e3 * median(base.first), ".0f", 20)
        cells += _cell(median(one.memory) / 2**20, median(base.memory) / 2**20, ".0f", 18)
        yield f"{name:<18}{one.how:<16}{cells}"
    if short := sum(one.short for one in found.values()):
        yield f"{short} answers ended before {TOKENS} tokens; what they had is counted"


def verdict(found: dict[str, Found], *, has_bfloat16: bool) -> Iterator[str]:
    """What was to be reached on such a CPU, and what was."""
    ours, base = found[TOGETHER], found[LANDED]
    twenty, five, one = (ours.speed(count) / base.speed(count) for count in (20, 5, 1))
    first = median(ours.first) / median(base.first)
    if has_bfloat16:
        least = min(twenty, five, one, 1 / first)
        yield f"with bfloat16: no slower anywhere: {_met(least >= 0.97)}, at worst x {least:.2f}"
        return
    yield f"without bfloat16: 20 at once, x 3 or more: {_met(twenty >= 3)}, x {twenty:.2f}"
    yield f"without bfloat16: 5 at once, x 2 or more: {_met(five >= 2)}, x {five:.2f}"
    yield f"without bfloat16: first token, x 0.5 or less: {_met(first <= 0.5)}, x {first:.2f}"


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


def _cell(value: float, base: float, form: str, width: int) -> str:
    return f"{f'{value:{form}} (x {value / base:.2f})':>{width}}"


if __name__ == "__main__":
    main()
