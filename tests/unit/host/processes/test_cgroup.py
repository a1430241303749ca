"""Where our cgroups are, what the kernel says of them, and that ending one leaves nobody in it.

The kernel's own tree where root may make a part of it; a folder with the same files elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import trio

from tests.fakes.process_tree import alive, pids_of_tree, shim_of, tree
from vllamad.errors import HostProblem
from vllamad.host.processes.cgroup import Cgroup, Cgroups, claim, folder_of, unit_of
from vllamad.host.processes.process_group import spawn
from vllamad.host.processes.process_tree import kill_strays

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n"
)
SERVICE = "0::/vllamad.slice/vllamad.service\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "folder"),
    [
        (UNIFIED, SERVICE, "/sys/fs/cgroup/vllamad.slice/vllamad.service"),
        (HYBRID, f"4:memory:/x\n{SERVICE}", "/sys/fs/cgroup/unified/vllamad.slice/vllamad.service"),
        (HYBRID, "0::/\n", "/sys/fs/cgroup/unified"),
        ("1 2 0:3 /a /c\\040d rw - cgroup2 cgroup2 rw\n", "0::/a/b\n", "/c d/b"),
        ("1 2 0:3 /other /c rw - cgroup2 cgroup2 rw\n", "0::/a/b\n", None),
        ("1 2 0:3 / /proc rw - proc proc rw\n", SERVICE, None),
        (UNIFIED, "4:memory:/x\n", None),
        ("", "", None),
    ],
)
def test_our_folder_is_found(mountinfo: str, own: str, folder: str | None) -> None:
    assert folder_of(mountinfo, own) == (folder and Path(folder))


@pytest.mark.parametrize(
    ("own", "unit"),
    [
        (SERVICE, ("vllamad.service", False)),
        ("0::/vllamad.slice/vllamad@a.service/supervisor\n", ("vllamad@a.service", False)),
        (
            "0::/user.slice/user-7.slice/user@7.service/app.slice/vllamad.service\n",
            ("vllamad.service", True),
        ),
        ("0::/\n", ("", False)),
        ("4:memory:/x\n", ("", False)),
    ],
)
def test_our_unit_is_found(own: str, unit: tuple[str, bool]) -> None:
    assert unit_of(own) == unit


class Tree:
    """A folder with files like those of a delegated cgroup, and the /proc that points to it."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "unit"
        self.top.mkdir()
        self.proc = folder / "proc"
        self.proc.mkdir()
        (self.proc / "mountinfo").write_text(f"1 2 0:3 / {folder} rw - cgroup2 cgroup2 rw\n")
        self.runs_in("/unit")

    def runs_in(self, path: str) -> None:
        (self.proc / "cgroup").write_text(f"0::{path}\n")

    def delegate(self) -> None:
        try:
            os.setxattr(self.top, "user.delegate", b"1")
        except OSError as problem:
            pytest.skip(f"no extended attributes under {self.top}: {problem.strerror}")


@pytest.fixture
def fake(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("path", ["/unit", "/unit/supervisor", "/unit/.control"])
def test_from_wherever_it_was_started_the_supervisor_has_a_part_of_its_own(
    fake: Tree, path: str
) -> None:
    fake.delegate()
    fake.runs_in(path)
    assert claim(keep_workers=False, proc=fake.proc).top == fake.top
    assert (fake.top / "supervisor" / "cgroup.procs").read_text() == "0"


def test_what_is_not_delegated_is_not_taken_though_we_could(fake: Tree) -> None:
    with pytest.raises(HostProblem, match=r"/unit is not delegated"):
        claim(keep_workers=False, proc=fake.proc)
    assert list(fake.top.iterdir()) == []


def test_what_cannot_be_written_to_is_not_taken(fake: Tree) -> None:
    fake.delegate()
    (fake.top / "supervisor").write_text("in the way")
    with pytest.raises(HostProblem, match=r"cannot use .*/unit: "):
        claim(keep_workers=False, proc=fake.proc)


def test_without_cgroup2_there_is_nothing_to_take(fake: Tree) -> None:
    (fake.proc / "mountinfo").write_text("")
    with pytest.raises(HostProblem, match="no cgroup2 is mounted"):
        claim(keep_workers=False, proc=fake.proc)


@pytest.mark.parametrize(
    ("path", "keeping", "memory"),
    [
        ("/unit", False, True),
        # The next start in a folder that hands out controllers would fail while workers live.
        ("/unit", True, False),
        ("/unit/supervisor", True, True),
    ],
)
def test_memory_is_counted_where_that_does_not_stand_in_the_way_of_a_restart(
    fake: Tree, path: str, keeping: bool, memory: bool
) -> None:
    fake.delegate()
    fake.runs_in(path)
    (fake.top / "cgroup.controllers").write_text("cpu memory pids\n")
    assert claim(keep_workers=keeping, proc=fake.proc).memory is memory
    assert (fake.top / "cgroup.subtree_control").exists() is memory


def test_without_a_controller_memory_is_not_counted(fake: Tree) -> None:
    fake.delegate()
    (fake.top / "cgroup.controllers").write_text("\n")
    assert not claim(keep_workers=False, proc=fake.proc).memory


@pytest.mark.parametrize(
    ("memory_max", "written"),
    [
        (0, {"memory.oom.group": "1", "memory.swap.max": "max"}),
        (1 << 30, {"memory.oom.group": "1", "memory.max": "1073741824", "memory.swap.max": "0"}),
    ],
)
def test_a_worker_dies_as_a_whole_and_at_its_limit(
    tmp_path: Path, memory_max: int, written: dict[str, str]
) -> None:
    (tmp_path / "worker-a").mkdir()
    (tmp_path / "worker-a" / "memory.swap.max").write_text("max")
    one = Cgroups(tmp_path, memory=True).make("a", memory_max=memory_max)
    assert {path.name: path.read_text() for path in one.path.iterdir()} == written


def test_what_the_kernel_counts_is_told(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    (tmp_path / "memory.peak").write_text("6000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    one = Cgroup(tmp_path, 0)
    assert (one.memory(), one.memory_peak(), one.cpu()) == (4000, 6000, 2.5)


def test_what_it_does_not_count_is_unknown(tmp_path: Path) -> None:
    one = Cgroup(tmp_path, 0)
    assert (one.memory(), one.memory_peak(), one.cpu()) == (None, None, None)
    assert (one.out_of_memory(), one.populated()) == (False, False)


@pytest.mark.parametrize("killed", [0, 3])
def test_a_death_for_lack_of_memory_is_counted_by_the_kernel(tmp_path: Path, killed: int) -> None:
    (tmp_path / "memory.events").write_text(f"low 0\noom 1\noom_kill {killed}\n")
    assert Cgroup(tmp_path, 0).out_of_memory() is (killed > 0)


@pytest.fixture
def real() -> Generator[Path]:
    """A delegated part of the kernel's tree, empty again afterwards."""
    mounts = Path("/proc/self/mountinfo").read_text()
    mounted = folder_of(mounts, "0::/\n")
    if mounted is None:
        pytest.skip("no cgroup2 is mounted here")
    top = mounted / f"vllamad-test-{os.getpid()}"
    try:
        top.mkdir()
        os.setxattr(top, "user.delegate", b"1")
    except OSError as problem:
        pytest.skip(f"cannot make a cgroup here: {problem.strerror}")
    yield top
    for folder in [*top.glob("*/"), top]:
        folder.rmdir()


CLAIM = """
import sys
from pathlib import Path
from vllamad.host.processes.cgroup import claim
Path(sys.argv[1], "cgroup.procs").write_text("0")
print(claim(keep_workers=False).top)
print(Path("/proc/self/cgroup").read_text())
"""


@pytest.mark.integration
def test_a_process_in_a_delegated_cgroup_moves_into_a_part_of_it(real: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(real)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    top, *own = done.stdout.splitlines()
    assert top == str(real)
    assert f"0::/{real.name}/supervisor" in own


@pytest.mark.integration
@pytest.mark.parametrize("killed", [False, True])
async def test_a_worker_is_in_its_cgroup_and_ending_it_leaves_neither(
    tmp_path: Path, real: Path, killed: bool
) -> None:
    group = Cgroups(real, memory=False).make("a")
    plan = tree(tmp_path, cgroup=group)
    with trio.fail_after(20):
        async with spawn(plan, term_timeout=5, kill_timeout=5) as running:
            pids = await pids_of_tree(tmp_path)
            inside = {int(pid) for pid in (group.path / "cgroup.procs").read_text().split()}
            assert inside == set(pids.values())
            assert (await trio.to_thread.run_sync(running.usage)).cpu
            if killed:
                os.kill(shim_of(running), 9)
    assert alive(pids) == {}
    assert not group.path.exists()
    assert kill_strays() == []


@pytest.mark.integration
async def test_what_a_daemon_that_died_left_is_ended_but_not_what_was_kept(real: Path) -> None:
    groups = Cgroups(real, memory=False)
    sleepers = {name: sleeper(groups.make(name)) for name in ("kept", "stale")}
    groups.make("empty")
    try:
        assert await groups.sweep({"kept"}, limit=10) == ["stale"]
        assert sleepers["stale"].wait(60) == -9
        assert sleepers["kept"].poll() is None
        left = [path.name for path in await trio.Path(real).glob("worker-*")]
        assert left == ["worker-kept"]
    finally:
        with trio.fail_after(10):
            await groups.sweep((), limit=10)
        sleepers["kept"].wait(60)


def sleeper(group: Cgroup) -> subprocess.Popen[bytes]:
    command = f"echo 0 > {group.path}/cgroup.procs; echo in; exec sleep 1000"
    process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    process.stdout.close()
    return process
