"""What was measured, as tables; and how far the machine can be trusted."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from tests.bench.cases import Result, Row, Streams
from tests.bench.sides import BARE, ENGINE

TOKENS = (
    ("", 14, "streams"),
    ("", 21, ""),
    ("", 10, "tokens/s"),
    ("", 9, "us/token"),
    ("token late", 8, "p50"),
    ("by, ms", 8, "p99"),
    ("added,", 8, "p50"),
    ("ms", 8, "p99"),
    ("speed by", 9, "engine's"),
    ("", 8, "bare's"),
    ("us/token", 11, "by bare's"),
)
REQUESTS = (
    ("", 14, "requests"),
    ("", 21, ""),
    ("", 10, "a second"),
    ("CPU, ms", 9, "relay"),
    ("", 11, "supervisor"),
    ("first", 8, "p50"),
    ("token, ms", 10, "p99"),
    ("speed by", 9, "engine's"),
    ("", 8, "bare's"),
    ("CPU by", 9, "bare's"),
)


def header() -> str:
    """The machine, and how steadily it does the same small work again and again."""
    times = sorted(_work() for _ in range(500))
    usual, bad = times[250] / times[0], times[-5] / times[0]
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f} before we began; the same millisecond of work took\n"
        f"x {usual:.2f} of its best time usually, x {bad:.1f} in one of a hundred times. Engine, "
        "relay and clients share\nthe cores: read the ratios. Flat out the engine or the clients "
        "may be the limit."
    )


def table(results: Mapping[Row, Mapping[str, Result]], *, tokens: bool) -> Iterable[str]:
    """The lines of one table."""
    columns = TOKENS if tokens else REQUESTS
    widths = [width for _, width, _ in columns]
    yield _line([above for above, _, _ in columns], widths)
    yield _line([name for _, _, name in columns], widths)
    for row, sides in results.items():
        for side, one in sides.items():
            first = [row.name if side == ENGINE else "", side, f"{one.speed:,.0f}"]
            if isinstance(row, Streams):
                cells = _token_cells(row, one, sides[ENGINE])
            else:
                cells = [*_shown(1e3, one.relay, one.supervisor), *_shown(1, one.p50, one.p99)]
            yield _line(first + cells + _ratios(side, sides), widths)


def others() -> float:
    """CPU seconds that went to what is not ours, from an unknown beginning."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    busy = sum((user, nice, system, *rest)) / os.sysconf("SC_CLK_TCK")
    mine, children = map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN))
    return busy - sum(one.ru_utime + one.ru_stime for one in (mine, children))


def _token_cells(row: Streams, one: Result, engine: Result) -> list[str]:
    cpu = f"{one.relay * 1e6:.1f}" if one.relay else ""
    if not row.paced:
        return [cpu, "", "", "", ""]
    added = () if one == engine else (one.p50 - engine.p50, one.p99 - engine.p99)
    return [cpu, *_shown(1, one.p50, one.p99), *(_shown(1, *added) or ["", ""])]


def _ratios(side: str, sides: Mapping[str, Result]) -> list[str]:
    """How one of our routes compares: its speed with both others, its CPU with the relay's."""
    if side in (ENGINE, BARE):
        return []
    ours, engine, bare = sides[side], sides[ENGINE], sides[BARE]
    ratios = (ours.speed / engine.speed, ours.speed / bare.speed, ours.relay / bare.relay)
    return [f"x {ratio:.2f}" if ratio < 10 else f"x {ratio:.0f}" for ratio in ratios]


def _shown(times: float, *values: float) -> list[str]:
    return [f"{value * times:.2f}" if value else "" for value in values]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = (
        f"{cell:<{width}}" if number < 2 else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )
    return "".join(aligned).rstrip()


def _work() -> float:
    began = time.perf_counter()
    sum(range(100_000))
    return time.perf_counter() - began
