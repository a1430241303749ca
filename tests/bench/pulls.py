"""How fast is a pull beside the hub's own library, and how much memory does it take?

    python -m tests.bench.pulls [--quick]

A real vllamad pulls 20 shards, 5 GB in all, from a hub on this machine whose list has 10,000 names;
in turn with it, huggingface_hub's `snapshot_download` brings the same files, in a process of its
own. Then the same over a line of 200 MB/s, and a repository of 9,000 small files. What is brought
is removed at once; it takes 10 GB of disk at most, in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.report import header, others
from tests.bench.shards import REPOSITORY, make
from tests.support.daemon import Daemon, cmdline, daemon, fake_config, fake_home
from vllamad.host.processes.shim import descendants
from vllamad.models.hub.file_selection import WANTED

ROOM = 10 << 30  # bytes
PLAIN = """
import json, sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], cache_dir=sys.argv[2], allow_patterns=json.loads(sys.argv[3]))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One repository on one line; `rate` in bytes a second, 0: as fast as it goes."""

    what: str
    total: int
    rate: float = 0
    rounds: int = 2
    shards: int = 20
    unwanted: int = 10_000
    small: int = 0


CASES = (
    Case("5 GB, no limit", 5 << 30),
    Case("5 GB at 200 MB/s", 5 << 30, rate=200e6),
    Case("9,000 small files", 20 << 20, unwanted=0, small=9_000),
)
QUICK = (Case("200 MB, no limit", 200 << 20, unwanted=1_000, rounds=1),)


@dataclass(slots=True)
class Peaks:
    """The most memory each part was seen to have, in MiB."""

    daemon: float = 0
    gateway: float = 0
    pull: float = 0

    def look(self, there: Daemon) -> None:
        for part, found in (
            ("daemon", [there.pid]),
            ("gateway", there.gateways()),
            ("pull", [one.pid for one in descendants(there.pid) if is_pull(one.pid)]),
        ):
            setattr(self, part, max(getattr(self, part), sum(map(held, found))))


@dataclass(slots=True)
class Outcome:
    ours: list[float] = field(default_factory=list[float])  # seconds
    plain: list[float] = field(default_factory=list[float])
    peaks: Peaks = field(default_factory=Peaks)


def main() -> None:
    """Measure and print; `--quick` only sees that it works."""
    parser = argparse.ArgumentParser(prog="tests.bench.pulls", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    cases = QUICK if parser.parse_args().quick else CASES
    began, theirs = time.monotonic(), others()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        check_room(Path(folder), max(case.total for case in cases))
        print(header(), flush=True)
        for case in cases:
            report(case, measure(case, Path(folder)))
    seconds, theirs = time.monotonic() - began, others() - theirs
    share = theirs / seconds / (os.cpu_count() or 1)
    print(f"\n{seconds:.0f} s, {share:.0%} of the machine went to other work")


def check_room(folder: Path, total: int) -> None:
    needed = min(ROOM, 2 * total + (2 << 30))
    if (free := shutil.disk_usage(folder).free) < needed:
        raise SystemExit(
            f"cannot measure pulls: {folder.parent} has {free >> 30} GiB free, {needed >> 30} are"
            " needed; name another folder in TMPDIR"
        )


def measure(case: Case, folder: Path) -> Outcome:
    """Pull it both ways, in turn."""
    source, home = folder / "source", folder / "home"
    source.mkdir()
    home.mkdir()
    make(source, case.shards, case.total, unwanted=case.unwanted, small=case.small)
    outcome = Outcome()
    try:
        with hub(source, case.rate) as endpoint, puller(home, endpoint) as there:
            for number in range(case.rounds):
                turns = [lambda: ours(there, outcome), lambda: plain(folder, endpoint, outcome)]
                for turn in turns if number % 2 else reversed(turns):
                    turn()
                    os.sync()  # so that nobody pays for what the other left to be written
    finally:
        shutil.rmtree(source)
        shutil.rmtree(home)
    return outcome


@contextmanager
def hub(source: Path, rate: float) -> Generator[str]:
    command = [sys.executable, "-m", "tests.bench.shards", str(source), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def puller(home: Path, endpoint: str) -> Generator[Daemon]:
    environ = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "none")}
    with daemon(fake_home(home, ()), config=fake_config(), environ=environ) as there:
        there.http.timeout = 600
        yield there


def ours(there: Daemon, outcome: Outcome) -> None:
    over = threading.Event()
    watching = threading.Thread(target=watch, args=(there, outcome.peaks, over))
    watching.start()
    began = time.monotonic()
    try:
        with there.http.stream("POST", "/api/pull", json={"model": REPOSITORY}) as answer:
            *_, last = answer.iter_lines()
        outcome.ours.append(time.monotonic() - began)
    finally:
        over.set()
        watching.join()
    if json.loads(last) != {"status": "success"}:
        raise SystemExit(f"the pull failed: {last}")
    there.http.request("DELETE", "/api/delete", json={"model": REPOSITORY}).raise_for_status()


def plain(folder: Path, endpoint: str, outcome: Outcome) -> None:
    cache = folder / "cache"
    environ = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    words = [sys.executable, "-c", PLAIN, REPOSITORY, str(cache), json.dumps(WANTED)]
    began = time.monotonic()
    try:
        subprocess.run(words, env=environ, check=True)
        outcome.plain.append(time.monotonic() - began)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def watch(there: Daemon, peaks: Peaks, over: threading.Event) -> None:
    while not over.wait(0.2):
        peaks.look(there)


def is_pull(pid: int) -> bool:
    return b"vllamad.models.hub.pull_process" in cmdline(pid)


def held(pid: int) -> float:
    """MiB of a process, its share of what others have mapped too (PSS)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just gone
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def report(case: Case, outcome: Outcome) -> None:
    ours, plain = median(outcome.ours), median(outcome.plain)
    peaks = outcome.peaks
    print(
        f"\n{case.what}; {case.shards} shards, {case.unwanted} names nobody needs,"
        f" medians of {case.rounds}\n"
        f"  vllamad            {ours:7.1f} s {speed(case, ours)}\n"
        f"  snapshot_download  {plain:7.1f} s {speed(case, plain)}\n"
        f"  speed of vllamad: x {plain / ours:.2f} of snapshot_download's\n"
        f"  memory at most, MiB: daemon {peaks.daemon:.0f}, gateway {peaks.gateway:.0f},"
        f" the pull's own process {peaks.pull:.0f}",
        flush=True,
    )


def speed(case: Case, seconds: float) -> str:
    if case.small:
        return f"{case.small / seconds:7.0f} files/s"
    return f"{case.total / seconds / 1e6:7.0f} MB/s"


if __name__ == "__main__":
    main()
