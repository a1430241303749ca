"""The output of a worker: no line lost at a moderate rate, no disk filled at any."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from vllamad.errors import HostProblem
from vllamad.host.log_files import LogPosition, WorkerLog, follow, last_lines, worker_log


class Seen(list[str]):
    """Lines as they were heard, and a way to wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = trio.Event()

    def hear(self, line: str) -> None:
        self.append(line)
        self._heard.set()
        self._heard = trio.Event()

    async def until(self, last: str) -> None:
        with trio.fail_after(20):
            while last not in self[-3:]:
                await self._heard.wait()


@asynccontextmanager
async def following(
    path: Path,
    hear: Callable[[str], None],
    *,
    max_bytes: int = 1 << 20,
    keep: int = 2,
    resume: LogPosition | None = None,
) -> AsyncGenerator[WorkerLog]:
    with worker_log(path, max_bytes=max_bytes, keep=keep, on_line=hear, resume=resume) as log:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.follow)
            yield log
            nursery.cancel_scope.cancel()


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def files(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in path.parent.iterdir()}


def read_all(path: Path) -> bytes:
    oldest_first = sorted(path.parent.glob("log.*"), key=lambda file: -int(file.suffix[1:]))
    return b"".join(file.read_bytes() for file in [*oldest_first, path])


async def test_each_line_is_heard_whole_however_it_was_written(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    async with following(path, seen.hear):
        for piece in (b"one\ntw", b"o\n\nthr", b"ee\0\xff\n", b"10%\r20%\r30%\r\n", b"end\n"):
            append(path, piece)
            await trio.testing.wait_all_tasks_blocked()
        await seen.until("end")
    assert seen == ["one", "two", "three\N{REPLACEMENT CHARACTER}", "10%", "20%", "30%", "end"]


async def test_who_goes_on_with_a_life_hears_what_came_since_and_each_line_once(
    tmp_path: Path,
) -> None:
    path, first, then = tmp_path / "log", Seen(), Seen()
    append(path, b"of an earlier life\n")
    async with following(path, first.hear) as log:
        append(path, b"one\ntw")
        await first.until("one")
        await trio.testing.wait_all_tasks_blocked()
        mark = log.mark
    append(path, b"o\nthree\n")
    async with following(path, then.hear, resume=mark) as log:
        await then.until("three")
        assert log.tail() == "one\ntwo\nthree\n"
    assert (first, then) == (["one"], ["two", "three"])


async def test_who_goes_on_after_a_rotation_takes_all_that_is_there(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    append(path, b"one\n")
    async with following(path, seen.hear, resume=LogPosition(began=500, read=900)) as log:
        append(path, b"two\n")
        await seen.until("two")
        assert log.tail() == "one\ntwo\n"


async def test_what_an_earlier_life_wrote_is_not_heard_again(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    append(path, b"of yesterday\n")
    async with following(path, seen.hear) as log:
        append(path, b"of today\n")
        await seen.until("of today")
        assert log.tail() == "of today\n"
    assert seen == ["of today"]


async def test_a_line_without_end_is_cut_and_the_next_is_whole(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    async with following(path, seen.hear):
        append(path, b"x" * 300_000 + b"\nnext\n")
        await seen.until("next")
    assert [len(line) for line in seen] == [8192, 4]


async def test_memory_keeps_the_last_64_kib(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    async with following(path, seen.hear) as log:
        append(path, b"".join(b"%099d\n" % number for number in range(2000)) + b"end\n")
        await seen.until("end")
        assert len(log.tail()) == 64 << 10
        assert log.tail().endswith("1999\nend\n")


async def test_at_the_end_of_a_life_the_rest_can_be_read_at_once(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", Seen()
    with worker_log(path, max_bytes=1 << 20, keep=1, on_line=seen.hear) as log:
        append(path, b"ValueError: no\n")
        log.catch_up()
        assert log.tail() == "ValueError: no\n"


async def test_rotation_keeps_the_newest_files_and_loses_nothing_between_them(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "log", Seen()
    async with following(path, seen.hear, max_bytes=4000, keep=3):
        for number in range(200):
            append(path, b"%099d\n" % number)
            await seen.until(f"{number:099d}")
    assert seen == [f"{number:099d}" for number in range(200)]
    kept = [int(line) for line in read_all(path).split()]
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) > 90
    assert sorted(files(path)) == ["log", "log.1", "log.2", "log.3"]
    assert max(files(path).values()) <= 4000


WRITER = """
import os, time
number = 0
for burst in range(60):
    os.write(1, b"".join(b"%0999d\\n" % n for n in range(number, number + 50)))
    number += 50
    time.sleep(0.01)
"""


@pytest.mark.integration
async def test_a_worker_that_writes_3000_lines_loses_none_over_the_rotations(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "log", Seen()
    async with following(path, seen.hear, max_bytes=400_000, keep=20):
        with path.open("ab") as output:
            await trio.run_process([sys.executable, "-S", "-c", WRITER], stdout=output)
        await seen.until(f"{2999:0999d}")
    assert [int(line) for line in seen] == list(range(3000))
    assert [int(line) for line in read_all(path).split()] == list(range(3000))
    assert len(files(path)) > 6


FLOOD = """
import os, time
line = b"x" * 199 + b"\\n"
until = time.monotonic() + 3
while time.monotonic() < until:
    os.write(1, line)
"""


@pytest.mark.integration
async def test_a_flood_neither_fills_the_disk_nor_holds_up_the_loop(tmp_path: Path) -> None:
    path, limit = tmp_path / "log", 16 << 20
    most_disk, beats, calm = 0, 0, trio.Event()

    async def observe() -> None:
        nonlocal most_disk, beats
        while True:
            await trio.sleep(0.005)
            beats += 1
            most_disk = max(most_disk, sum(files(path).values()))

    def hear(line: str) -> None:
        if line == "last words":
            calm.set()

    with trio.fail_after(30):
        async with following(path, hear, max_bytes=limit) as log, trio.open_nursery() as tasks:
            tasks.start_soon(observe)
            with path.open("ab") as output:
                await trio.run_process([sys.executable, "-S", "-c", FLOOD], stdout=output)
            while files(path)["log"] > limit * 3 // 4:  # noqa: ASYNC110 - not yet rotated
                await trio.sleep(0.01)
            append(path, b"last words\n")
            await calm.wait()
            assert "last words" in log.tail()
            tasks.cancel_scope.cancel()
    assert most_disk <= 3 * limit + 2 * limit  # what is kept, and what comes while we are not on
    assert beats > 100  # of some 600: the two cores have other work
    assert len(files(path)) == 3


async def test_a_follower_sees_the_last_lines_then_all_that_comes_over_a_rotation(
    tmp_path: Path,
) -> None:
    path, seen = tmp_path / "log", Seen()
    append(path, b"one\ntwo\nthree\n")
    got = b""
    wanted = b"two\nthree\n" + b"".join(b"%099d\n" % number for number in range(60))

    begun = trio.Event()

    async def read() -> None:
        nonlocal got
        async with aclosing(follow(path, 2)) as pieces:
            async for piece in pieces:
                got += piece
                begun.set()
                if len(got) >= len(wanted):
                    return

    with trio.fail_after(10):
        async with following(path, seen.hear, max_bytes=4000), trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await begun.wait()
            for number in range(60):
                append(path, b"%099d\n" % number)
                await seen.until(f"{number:099d}")
                await trio.testing.wait_all_tasks_blocked()
    assert got == wanted
    assert (tmp_path / "log.1").exists()


def test_the_last_lines_reach_back_into_the_newest_rotated_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(tmp_path / "log.1", b"one\ntwo\n")
    append(path, b"three\nfo")
    assert last_lines(path, 1) == b"fo"
    assert last_lines(path, 3) == b"two\nthree\nfo"
    assert last_lines(path, 9) == b"one\ntwo\nthree\nfo"


def test_a_log_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match=r"cannot read .*/log: No such file"):
        last_lines(tmp_path / "log", 3)


async def test_a_log_that_is_not_there_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match=r"cannot follow .*/log: No such file"):
        async for _ in follow(tmp_path / "log", 3):
            pass
