"""How a process ended is told in one wording: by real signals, by real processes, by tables."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from vllamad.host.processes import process_endings
from vllamad.host.processes.process_endings import (
    Exit,
    Watch,
    ended,
    exit_code,
    signal_name,
    starved,
)

CRASHES = {
    signal.SIGSEGV: "import ctypes; ctypes.string_at(0)",
    signal.SIGABRT: "import os; os.abort()",
    signal.SIGBUS: (
        "import mmap, tempfile; file = tempfile.TemporaryFile(); file.truncate(4096);"
        "page = mmap.mmap(file.fileno(), 4096); file.truncate(0); page[0]"
    ),
    # The instruction that is undefined on purpose: ud2 on x86-64, udf on AArch64.
    signal.SIGILL: (
        "import ctypes, mmap, platform;"
        "code = b'\\x0f\\x0b' if platform.machine() == 'x86_64' else bytes(4);"
        "page = mmap.mmap(-1, 4096, prot=7); page.write(code);"
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    ),
}


@pytest.mark.parametrize("number", CRASHES)
def test_a_crash_is_told_by_its_signal(number: signal.Signals) -> None:
    watch = Watch()
    done = subprocess.run([sys.executable, "-S", "-c", CRASHES[number]], check=False)
    told = watch.describe(done.returncode, "OSError: why")
    assert told.startswith(f"killed by {number.name} (")
    assert told.endswith(": OSError: why")


def test_a_bus_error_tells_what_shared_memory_has() -> None:
    assert re.fullmatch(
        r"killed by SIGBUS \(bus error\): /dev/shm has \d+ MiB of \d+ MiB free",
        Watch().describe(-signal.SIGBUS),
    )


def test_a_machine_without_shared_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_endings, "_SHM", tmp_path / "shm")
    assert (
        Watch().describe(-signal.SIGBUS).endswith("shm cannot be asked: No such file or directory")
    )


@pytest.mark.parametrize(
    ("code", "line", "told"),
    [
        (0, "", "exit status 0"),
        (3, "ValueError: no", "exit status 3: ValueError: no"),
        (-4, "", "killed by SIGILL (illegal instruction)"),
        (-4, "ValueError: no", "killed by SIGILL (illegal instruction): ValueError: no"),
        (-11, "Fatal Python error: Segmentation fault", "killed by SIGSEGV (segmentation fault)"),
        (-11, "!!! Segfault encountered !!!", "killed by SIGSEGV (segmentation fault)"),
        (-6, "terminate called after x", "killed by SIGABRT (aborted): terminate called after x"),
        (-15, "", "killed by SIGTERM (terminated)"),
        (-40, "", "killed by signal 40"),
    ],
)
def test_an_end_is_told_in_one_wording(code: int, line: str, told: str) -> None:
    assert Watch().describe(code, line) == told


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("low 0\noom_kill 1\n", "low 0\noom_kill 1\n", "not by the kernel's OOM killer; "),
        ("oom_kill 1\n", "oom_kill 2\n", "out of memory, the kernel's OOM killer ended it; "),
        ("", "", ""),
    ],
)
def test_a_kill_tells_its_memory_and_whether_the_kernel_did_it(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text(before)
    watch = Watch(tmp_path / "below")  # the nearest that counts is one above
    counter.write_text(after)
    assert watch.describe(-9, memory=812 << 20) == f"killed by SIGKILL: {told}it had 812 MiB"


def test_a_cgroup_that_is_gone_accuses_nobody(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 0\n")
    watch = Watch(tmp_path)
    counter.unlink()
    assert watch.describe(-9, memory=0) == "killed by SIGKILL: it had 0 MiB"


def test_the_largest_child_since_is_what_it_had() -> None:
    code = "import os; block = bytearray(300 << 20); os.kill(os.getpid(), 9)"
    watch = Watch()
    held = process_endings._largest_child()
    done = subprocess.run([sys.executable, "-S", "-c", code], check=False)
    told = watch.describe(done.returncode)
    assert told.startswith("killed by SIGKILL")
    if held < 300 << 20:  # else a test before this one has waited for a larger one
        assert re.search(r"it had 3\d\d MiB$", told)


def test_a_cgroup_s_limit_is_told() -> None:
    words = "killed by SIGKILL: out of memory, the kernel's OOM killer ended it"
    assert starved(1020 << 20, 0) == f"{words}; it had 1020 MiB"
    assert starved(1020 << 20, 1 << 30) == f"{words}; it had 1020 MiB; its memory_max is 1024 MiB"
    assert starved(None, 0) == words


def test_signals_have_names() -> None:
    assert signal_name(signal.SIGKILL) == "SIGKILL"
    assert signal_name(signal.SIGFPE) == "SIGFPE (floating point exception)"


async def test_a_child_s_memory_is_told_by_the_kernel() -> None:
    code = "import os; block = bytearray(200 << 20); os.kill(os.getpid(), 9)"
    process = await trio.lowlevel.open_process([sys.executable, "-S", "-c", code])
    with trio.fail_after(20):
        end = await ended(process)
    assert end.code == -9
    assert end.memory is not None
    # A child that has not run its program yet has the memory of the parent.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert 200 << 20 <= end.memory < max(260 << 20, own + (60 << 20))
    assert process.returncode is not None, "nobody waits for it again"


async def test_a_child_that_was_reaped_already_has_its_status() -> None:
    process = await trio.lowlevel.open_process([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    with trio.fail_after(20):
        await process.wait()
        assert await ended(process) == Exit(3)


def test_the_end_of_another_s_child_is_known_while_it_is_a_zombie_and_after() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    pidfd = os.pidfd_open(process.pid)
    try:
        process.kill()
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert exit_code(process.pid, pidfd) == -9
        process.wait()
        assert exit_code(process.pid, pidfd) in (-9, None)
        if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
            assert exit_code(process.pid, pidfd) == -9
    finally:
        os.close(pidfd)


def test_the_end_of_one_that_lives_is_not_known() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert exit_code(os.getpid(), pidfd) is None
    finally:
        os.close(pidfd)


def test_the_last_line_that_names_an_error_is_found() -> None:
    lines = ["Traceback", "ValueError: first", "  File x", "a.b.OtherError: why", "Error in x"]
    assert process_endings.last_error(lines) == "a.b.OtherError: why"
    assert process_endings.last_error(["UserWarning: x", "all is well"]) == ""
