"""Promises of numbers in words and of the live line."""

from __future__ import annotations

import pytest

from vllamactl import human
from vllamactl.progress import live_line
from vllamad.wire.control import Progress


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (271_060_000, "271 MB"),
        (4_700_000_000, "4.7 GB"),
        (10_000_000_000, "10 GB"),
        (2_500_000_000_000, "2.5 TB"),
    ],
)
def test_sizes_are_decimal(count: int, said: str) -> None:
    assert human.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (299, "4 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_words(seconds: float, said: str) -> None:
    assert human.duration(seconds) == said


def test_never_is_forever() -> None:
    assert human.from_now(None) == "Forever"
    assert human.from_now(-3) == "Less than a second from now"


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("1970-01-01T00:00:40Z", "About a minute ago"),
        ("1970-01-01T01:00:40.123456789+01:00", "59 seconds ago"),
        ("1970-01-01T00:00:40", "About a minute ago"),
        ("2999-01-01T00:00:00Z", "Less than a second ago"),
        ("yesterday", "yesterday"),
        ("", "-"),
    ],
)
def test_moments_are_told_from_now(moment: str, said: str) -> None:
    assert human.ago(moment, 100.0) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0.0s"), (9.96, "10.0s"), (59, "59s"), (65, "1m05s"), (7260, "2h01m")]
)
def test_running_times_are_short(seconds: float, said: str) -> None:
    assert human.clock(seconds) == said


def test_a_live_line_has_bar_rate_and_rest() -> None:
    half = Progress(status="downloading", completed=100_000_000, total=200_000_000)
    assert live_line(half, "pulling m", 4.0) == (
        "pulling m: downloading  ━━━━━━━━━━━━━━━╺                50%"
        "  100 MB/200 MB  25 MB/s  4.0s left"
    )


def test_a_full_bar_does_not_overflow() -> None:
    over = Progress(status="x", completed=300, total=200)
    assert "━" * 30 + " 100%" in live_line(over, "pulling m", 4.0)


def test_a_live_line_without_a_total_has_the_time() -> None:
    assert live_line(Progress(status="starting"), "loading m", 12.3) == "loading m: starting  12s"
