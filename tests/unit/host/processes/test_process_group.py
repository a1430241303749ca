"""Real process trees: whatever happens to whom, none of a worker's processes is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.fakes.process_tree import PARTS, TREE, alive, launch, pids_of_tree, shim_of, tree, until
from vllamad.errors import HostProblem
from vllamad.host.processes import shim
from vllamad.host.processes.process_group import Launch, ProcessGroup, spawn
from vllamad.host.processes.process_tree import first_exit, kill_strays

pytestmark = pytest.mark.integration


@asynccontextmanager
async def spawned(
    plan: Launch, *, term_timeout: float = 5, kill_timeout: float = 5
) -> AsyncGenerator[ProcessGroup]:
    with trio.fail_after(20):
        async with spawn(plan, term_timeout=term_timeout, kill_timeout=kill_timeout) as group:
            yield group


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_leaving_the_block_ends_every_process_even_one_in_a_session_of_its_own(
    tmp_path: Path,
) -> None:
    async with spawned(tree(tmp_path)) as group:
        pids = await pids_of_tree(tmp_path)
        assert {pid for pid, _ in group.members()} == set(pids.values())
        assert pids["leader"] == group.pid
    assert alive(pids) == {}


@pytest.mark.parametrize("part", PARTS)
async def test_after_a_sigkill_of_any_part_leaving_the_block_leaves_none(
    tmp_path: Path, part: str
) -> None:
    async with spawned(tree(tmp_path)):
        pids = await pids_of_tree(tmp_path)
        os.kill(pids[part], signal.SIGKILL)
    assert alive(pids) == {}


async def test_the_death_of_the_leader_alone_ends_the_tree_without_an_order(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path)) as group:
        pids = await pids_of_tree(tmp_path)
        os.kill(group.pid, signal.SIGKILL)
        assert await group.exited() == -signal.SIGKILL
        await until(lambda: not group.members())
        assert alive(pids) == {}


async def test_a_leader_deaf_to_term_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path, "deaf"), term_timeout=0.3):
        pids = await pids_of_tree(tmp_path)
        asked = trio.current_time()
    assert 0.3 <= trio.current_time() - asked < 2
    assert alive(pids) == {}


async def test_with_kill_now_nobody_waits_for_term(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path, "deaf"), term_timeout=60) as group:
        pids = await pids_of_tree(tmp_path)
        group.kill_now = True
        asked = trio.current_time()
    assert trio.current_time() - asked < 2
    assert alive(pids) == {}


async def test_a_killed_shim_takes_the_leader_along_and_the_strays_are_ended(
    tmp_path: Path,
) -> None:
    async with spawned(tree(tmp_path)) as group:
        pids = await pids_of_tree(tmp_path)
        os.kill(shim_of(group), signal.SIGKILL)
        assert await group.exited() == -signal.SIGKILL
    assert alive(pids) == {}
    assert kill_strays() == []


async def test_a_shim_is_deaf_to_polite_signals(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path)) as group:
        pids = await pids_of_tree(tmp_path)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(shim_of(group), number)
        assert alive(pids) == pids
    assert alive(pids) == {}


async def test_our_own_children_are_no_strays(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path)):
        pids = await pids_of_tree(tmp_path)
        assert kill_strays() == []
        assert alive(pids) == pids


RUNAWAY = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True:  # each lives just long enough to fork the next, in a session of its own
            if os.fork():
                os._exit(0)
            os.setsid()
time.sleep(1000)
"""


async def test_processes_that_run_away_by_forking_are_caught(tmp_path: Path) -> None:
    plan = launch(tmp_path, sys.executable, "-S", "-c", RUNAWAY)
    before = shim.descendants(os.getpid())
    async with spawned(plan) as group:
        await until(lambda: len(group.members()) > 3)
        group.kill_now = True
    assert shim.descendants(os.getpid()) == before


SUPERVISOR = """
import sys, trio
from pathlib import Path
from vllamad.host.processes.process_group import Launch, spawn
async def main():
    folder = Path(sys.argv[1])
    plan = Launch(argv=(sys.executable, "-S", "-c", sys.argv[2], "deaf"), env={}, cwd=folder,
                  log_path=folder / "log")
    async with spawn(plan, term_timeout=5, kill_timeout=5):
        await trio.sleep_forever()
trio.run(main)
"""


async def test_a_killed_supervisor_leaves_nothing_a_moment_later(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), TREE]
    with trio.fail_after(20):
        supervisor = await trio.lowlevel.open_process(command)
        pids = await pids_of_tree(tmp_path)
        supervisor.kill()
        await supervisor.wait()
        with trio.fail_after(15):
            await until(lambda: not alive(pids))


@pytest.mark.parametrize("moment", range(0, 100, 7))
async def test_a_cancel_at_any_moment_leaves_nothing(tmp_path: Path, moment: int) -> None:
    """A start takes some 50 ms: these moments fall before it, into it and after it."""
    before = shim.descendants(os.getpid())
    with trio.fail_after(20), trio.move_on_after(moment / 1000):
        async with spawn(tree(tmp_path, "deaf"), term_timeout=0.01, kill_timeout=5):
            await trio.sleep_forever()
    assert shim.descendants(os.getpid()) == before


async def test_the_leader_gets_exactly_the_given_environment_and_folder(tmp_path: Path) -> None:
    plan = launch(tmp_path, "/usr/bin/env", "-u", "_", "/bin/sh", "-c", "env; pwd", KEY="a b\n'c\"")
    async with spawned(plan) as group:
        assert await group.exited() == 0
    lines = (tmp_path / "log").read_text()
    assert lines.startswith("KEY=a b\n'c\"\n")
    assert set(lines.replace("KEY=a b\n'c\"\n", "").split()) <= {
        f"PWD={tmp_path}", str(tmp_path), "SHLVL=0", "SHLVL=1", "OLDPWD=", "_=/usr/bin/env",
    }  # fmt: skip


FACTS = """
import os, signal, sys
print("session", os.getsid(0) == os.getpid() == os.getpgrp())
print("stdin", os.readlink("/proc/self/fd/0"))
print("open", sorted(map(int, os.listdir("/proc/self/fd")))[:3], len(os.listdir("/proc/self/fd")))
print("oom", open("/proc/self/oom_score_adj").read().strip())
masks = [int(line.split()[1], 16) for line in open("/proc/self/status") if "SigIgn" in line]
print("ignored", [n for n in range(1, 32) if masks[0] >> (n - 1) & 1])  # 32 and up: not ours
print("arguments", sys.argv[1:])
print("to stderr", file=sys.stderr)
raise SystemExit(3)
"""


async def test_the_leader_starts_clean_and_its_exit_code_is_known(tmp_path: Path) -> None:
    plan = launch(tmp_path, sys.executable, "-S", "-u", "-c", FACTS, "a b", "")
    async with spawned(plan) as group:
        assert await group.exited() == 3
    assert (tmp_path / "log").read_text().splitlines() == [
        "session True",
        "stdin /dev/null",
        "open [0, 1, 2] 4",
        "oom 500",
        "ignored [13, 25]",  # SIGPIPE and SIGXFSZ: its own Python ignores these
        "arguments ['a b', '']",
        "to stderr",
    ]


async def test_a_leader_hears_the_signals_that_we_were_started_deaf_to(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a shell does for background jobs
    try:
        async with spawned(launch(tmp_path, sys.executable, "-S", "-u", "-c", FACTS)) as group:
            await group.exited()
    finally:
        signal.signal(signal.SIGQUIT, before)
    assert "ignored [13, 25]" in (tmp_path / "log").read_text().splitlines()


async def test_output_is_appended(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    async with spawned(launch(tmp_path, "/bin/echo", "after")) as group:
        await group.exited()
    assert (tmp_path / "log").read_text() == "before\nafter\n"


async def test_a_command_that_cannot_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match=r"cannot start /no/such: .*No such file"):
        async with spawned(launch(tmp_path, "/no/such")):
            pytest.fail("it started")


async def test_a_log_that_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(HostProblem, match=r"cannot open .*: No such file"):
        async with spawned(launch(tmp_path / "log" / "x", "/bin/true")):
            pytest.fail("it started")


async def test_what_will_not_die_is_named_and_its_end_can_be_awaited(tmp_path: Path) -> None:
    held: list[ProcessGroup] = []

    async def stop_what_cannot_be_stopped() -> None:
        async with spawned(tree(tmp_path), kill_timeout=0.2) as group:
            held.append(group)
            group.kill_now = True
            await pids_of_tree(tmp_path)
            os.kill(shim_of(group), signal.SIGSTOP)  # the nearest we come to a process in state D

    with pytest.raises(
        HostProblem, match=r"cannot empty .*: after 0.2 s there is still \d+ \(python"
    ):
        await stop_what_cannot_be_stopped()
    pids = await pids_of_tree(tmp_path)
    assert alive(pids) == pids
    os.kill(shim_of(held[0]), signal.SIGCONT)
    with trio.fail_after(5):
        await held[0].gone()
    assert alive(pids) == {}


async def test_the_end_of_any_watched_process_is_noticed_at_once(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path)):
        pids = await pids_of_tree(tmp_path)
        async with trio.open_nursery() as nursery:
            seen = trio.Event()

            async def notice() -> None:
                pid, code = await first_exit(pids.values())
                assert pid == pids["stray"]
                assert code in (-signal.SIGKILL, None), "the kernel knows from Linux 6.15 on"
                seen.set()

            nursery.start_soon(notice)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pids["stray"], signal.SIGKILL)
            with trio.fail_after(10):
                await seen.wait()
        pid, code = await first_exit([pids["stray"]])  # gone, or about to be
        assert pid == pids["stray"]
        assert code in (-signal.SIGKILL, None)


async def test_memory_counts_the_whole_tree_and_a_shim_is_small(tmp_path: Path) -> None:
    async with spawned(tree(tmp_path)) as group:
        await pids_of_tree(tmp_path)
        usage = await trio.to_thread.run_sync(group.usage)
        assert 2 << 20 < usage.memory < 60 << 20
        assert resident(shim_of(group)) < 12 << 20


async def test_a_worker_may_clean_up_for_a_moment_after_its_leader(tmp_path: Path) -> None:
    """Python's resource tracker removes shared memory only once the leader is gone."""
    script = "(while kill -0 $$; do :; done; echo swept) 2>/dev/null & sleep 0.1; exit 0"
    async with spawned(launch(tmp_path, "/bin/sh", "-c", script, PATH=os.defpath)) as group:
        await group.exited()
    assert (tmp_path / "log").read_text() == "swept\n"


async def test_workers_of_one_supervisor_do_not_touch_each_other(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    async with spawned(tree(tmp_path / "a")):
        others = await pids_of_tree(tmp_path / "a")
        async with spawned(tree(tmp_path / "b")) as group:
            pids = await pids_of_tree(tmp_path / "b")
            os.kill(shim_of(group), signal.SIGKILL)
        assert alive(pids) == {}
        assert alive(others) == others


def test_a_shim_whose_supervisor_dies_before_the_job_just_leaves() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__], stdin=theirs.fileno()
        )
    ours.close()
    assert process.wait(5) == 0


SHARES = """
from multiprocessing import resource_tracker, shared_memory
import os, sys, time
if "child" in sys.argv and os.fork():
    time.sleep(60)
memory = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(memory._name, "shared_memory")  # nobody else will remove it
print(memory.name, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("politely", [True, False])
async def test_shared_memory_of_the_tree_is_removed_with_it(tmp_path: Path, politely: bool) -> None:
    log = tmp_path / "log"
    argv = (sys.executable, "-c", SHARES)
    launch = Launch(argv=argv, env={}, cwd=tmp_path, log_path=log)
    with trio.fail_after(20):
        async with spawn(launch, term_timeout=5, kill_timeout=5) as group:
            while not log.read_text().endswith("\n"):  # noqa: ASYNC110
                await trio.sleep(0.01)
            shared = Path("/dev/shm") / log.read_text().strip()
            assert shared.exists()
            group.kill_now = not politely
    assert not shared.exists()


@pytest.mark.parametrize("who", ["child", "leader"])
async def test_shared_memory_is_removed_though_the_shim_was_killed(
    tmp_path: Path, who: str
) -> None:
    """And the leader with it, at once: what was mapped must have been seen before."""
    log = tmp_path / "log"
    async with spawned(launch(tmp_path, sys.executable, "-c", SHARES, who)) as group:
        await until(lambda: log.read_text().endswith("\n"))
        shared = Path("/dev/shm") / log.read_text().strip()
        assert shared.exists()
        await trio.to_thread.run_sync(group.usage)
        os.kill(shim_of(group), signal.SIGKILL)
    assert not shared.exists()


OPENMP = """
import os, time
name = f"/dev/shm/__KMP_REGISTERED_LIB_{os.getpid()}_{os.getuid()}"
open(name, "w").close()  # libiomp5 has it mapped for a moment only
print(name, flush=True)
time.sleep(60)
"""


async def test_the_file_of_intels_openmp_is_removed_with_its_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    launch = Launch(argv=(sys.executable, "-c", OPENMP), env={}, cwd=tmp_path, log_path=log)
    with trio.fail_after(20):
        async with spawn(launch, term_timeout=5, kill_timeout=5) as group:
            while not log.read_text().endswith("\n"):  # noqa: ASYNC110
                await trio.sleep(0.01)
            left = Path("/dev/shm") / log.read_text().strip().rpartition("/")[2]
            assert left.exists()
            group.kill_now = True
    assert not left.exists()
