"""Promises of numbers in words and of the live line."""

from __future__ import annotations

import pytest

from vllamactl import human
from vllamactl.download_meter import DownloadMeter
from vllamad.protocol.control import Progress


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


def test_one_file_has_bar_rate_and_rest_in_one_line() -> None:
    meter = DownloadMeter()
    meter.add(Progress(status="pulling a", completed=0, total=200_000_000), 0.0)
    meter.add(Progress(status="pulling a", completed=100_000_000, total=200_000_000), 4.0)
    assert meter.lines(4.0, 20) == [
        "pulling a  ━━━━━━━━━━━━━━━╺                50%  100 MB/200 MB  25 MB/s  4.0s left"
    ]


def test_several_files_have_a_line_each_while_they_come_and_one_for_all() -> None:
    meter = DownloadMeter()
    for name, completed in (("a", 100), ("b", 50), ("cc", 0)):
        meter.add(Progress(status=name, digest=f"sha256:{name}", completed=0, total=100), 0.0)
        meter.add(Progress(status=name, digest=f"sha256:{name}", completed=completed, total=100), 1)
    rows = [line.split() for line in meter.lines(1.0, 20)]
    assert [(row[0], row[-2]) for row in rows[:-1]] == [("b", "B/100")]
    assert " ".join(rows[-1]) == f"3 files {'━' * 15}╺ 50% 150 B/300 B 150 B/s 1.0s left"


def test_the_rate_forgets_what_was_long_ago_and_what_was_here_before() -> None:
    meter = DownloadMeter()
    meter.add(Progress(status="a", completed=500, total=10_000), 0.0)
    assert meter.rate(0.0) == 0.0
    for second in range(1, 31):
        done = 500 + (1000 if second < 10 else 1000 + 10 * (second - 10))
        meter.add(Progress(status="a", completed=done, total=10_000), float(second))
    assert meter.rate(30.0) == 10.0


def test_a_count_never_goes_back_nor_past_the_end() -> None:
    meter = DownloadMeter()
    for completed in (90, 20, 300):
        meter.add(Progress(status="a", completed=completed, total=100), 0.0)
        assert meter.completed in (90, 100)
    assert "━" * 30 + " 100%" in meter.lines(1.0, 20)[0]


def test_no_more_rows_than_there_is_room_for() -> None:
    meter = DownloadMeter()
    for number in range(20):
        meter.add(Progress(status=f"f{number}", completed=1, total=100), 0.0)
    assert len(meter.lines(0.0, 5)) == 6


def test_what_has_no_total_has_no_row() -> None:
    meter = DownloadMeter()
    meter.add(Progress(status="starting"), 0.0)
    assert meter.lines(0.0, 20) == []
