"""`make conformance`: drive every client, or those named, and print what each could do.

Exit status 0: every feature of every client; 1: not so; 2: no client or no engine to drive.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.roster import CLIENTS, Client
from tests.conformance.stage import Outcome, absent, run, serving, versions
from tests.conformance.table import problems, table


def main(words: list[str]) -> int:
    """Drive the clients whose names begin with one of `words`, all where there are none."""
    wanted = [one for one in CLIENTS if one.name.startswith(tuple(words) or "")]
    if not wanted:
        print(f"✗ no such client; there are: {', '.join(one.name for one in CLIENTS)}")
        return 2
    prepared = Path(os.environ.get("VLLAMAD_HOME") or Path.home() / ".cache" / "vllamad-dev")
    if not (prepared / "state" / "runtimes" / "current").exists():
        print(f"✗ no engine runtime under {prepared}: run `make prepare`")
        return 2
    outcomes, skipped = driven(wanted, prepared)
    print(f"\n{table(outcomes)}\n")
    print("Driven:", "; ".join(versions(client) for client in outcomes))
    for line in (*skipped, *problems(outcomes)):
        print(line)
    failed = problems(outcomes) or (skipped and os.environ.get("CI"))
    return 1 if failed else 0


def driven(wanted: list[Client], prepared: Path) -> tuple[dict[Client, list[Outcome]], list[str]]:
    """The outcomes of those that can be driven here, and why the others cannot."""
    outcomes: dict[Client, list[Outcome]] = {}
    skipped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vllamad-") as folder:
        home = Path(folder)
        with serving(prepared, home) as real:
            for client in wanted:
                if reason := absent(client):
                    skipped.append(f"• {client.name}: skipped, {reason}")
                    continue
                began = time.monotonic()
                outcomes[client] = found = run(client, real, home)
                good = sum(not one.problem for one in found)
                mark = "✓" if good == len(found) else "✗"
                took = time.monotonic() - began
                print(f"{mark} {client.name}: {good} of {len(found)}  {took:.1f} s", flush=True)
    return outcomes, skipped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
