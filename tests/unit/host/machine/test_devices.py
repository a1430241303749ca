"""What the machine offers: files like the kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vllamad.core.memory import GIB, Device, Machine
from vllamad.host.machine import devices

GROUP = "system.slice/vllamad.service"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 16 GiB, on which we run in a control group without limits."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal:       16777216 kB\nMemFree:  1234 kB\nSwapTotal:  99999999 kB\n"
    )
    (tmp_path / "proc/self/cgroup").write_text(f"1:cpu:/old\n0::/{GROUP}\n")
    limit(tmp_path, "", memory="max", cpu="max 100000")
    limit(tmp_path, GROUP, memory="max", cpu="max 100000")
    return tmp_path


def limit(root: Path, group: str, *, memory: str = "max", cpu: str = "max 100000") -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{memory}\n")
    (folder / "cpu.max").write_text(f"{cpu}\n")


def test_main_memory_is_the_machines(root: Path) -> None:
    assert devices.main_memory(root) == 16 * GIB


@pytest.mark.parametrize("group", ["", "system.slice", GROUP])
def test_the_limit_of_our_control_group_or_one_above_it_is_ours(root: Path, group: str) -> None:
    limit(root, group, memory=str(4 * GIB))
    assert devices.main_memory(root) == 4 * GIB


def test_of_several_limits_the_least_counts_and_none_is_more_than_the_machine(root: Path) -> None:
    limit(root, "system.slice", memory=str(8 * GIB))
    limit(root, GROUP, memory=str(99 * GIB))
    assert devices.main_memory(root) == 8 * GIB


def test_a_container_that_sees_only_its_own_group_has_its_limit(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/not/seen/here\n")
    limit(root, "", memory=str(2 * GIB))
    assert devices.main_memory(root) == 2 * GIB


@pytest.mark.parametrize("groups", ["", "4:memory:/x\n1:cpu:/x\n", "0::/\n"])
def test_without_limits_or_such_groups_the_machine_is_ours(root: Path, groups: str) -> None:
    (root / "proc/self/cgroup").write_text(groups)
    assert devices.main_memory(root) == 16 * GIB


def test_a_kernel_without_control_groups_limits_nothing(root: Path) -> None:
    (root / "proc/self/cgroup").unlink()
    assert devices.main_memory(root) == 16 * GIB


def test_this_machine_has_memory_and_cores() -> None:
    assert devices.main_memory() > 1 << 26
    assert devices.cores() >= 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1)]
)
def test_cores_are_no_more_than_our_share_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: range(8))
    limit(root, GROUP, cpu=quota)
    assert devices.cores(root) == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (150000, 2)])
def test_the_quota_of_an_older_controller_counts_too(
    root: Path, monkeypatch: pytest.MonkeyPatch, quota: int, cores: int
) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: range(8))
    (root / "proc/self/cgroup").write_text("4:cpu,cpuacct:/docker/x\n0::/\n")
    group = root / "sys/fs/cgroup/cpu/docker"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert devices.cores(root) == cores


@pytest.mark.parametrize(
    ("own", "cores"),
    [(range(8), 4), (range(2), 2), ((0, 2, 4), 3), ((0, 1, 2), 2), ((6, 7), 2)],
)
def test_two_threads_of_a_core_count_once_unless_they_are_all_there_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, own: Sequence[int], cores: int
) -> None:
    for number in range(8):
        folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number & ~1}-{number | 1}\n")
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: own)
    assert devices.cores(root) == cores


def test_a_kind_of_cpu_has_a_key_and_another_kind_another(root: Path) -> None:
    def key(*lines: str) -> str:
        (root / "proc/cpuinfo").write_text("\n".join(lines) + "\n\nprocessor : 1\nflags : x\n")
        return devices.cpu_key(root)

    x86 = key("processor : 0", "model name : AMD EPYC", "flags : avx2 avx512f")
    assert x86.startswith("AMD EPYC ")
    assert x86 == key("processor : 7", "model name : AMD EPYC", "flags : avx512f avx2", "MHz : 5")
    assert x86 != key("processor : 0", "model name : AMD EPYC", "flags : avx2 avx512f amx_tile")
    assert x86 != key("processor : 0", "model name : Intel", "flags : avx2 avx512f")
    arm = key("processor : 0", "CPU implementer : 0x41", "CPU part : 0xd0c", "Features : bf16")
    assert arm != key("processor : 0", "CPU implementer : 0x41", "CPU part : 0xd0c")
    (root / "proc/cpuinfo").unlink()
    assert devices.cpu_key(root)


def test_a_machine_is_an_operators_limit_or_most_of_main_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "main_memory", lambda: 100 * GIB)
    monkeypatch.setattr(devices, "cores", lambda: 6)
    asked = devices.machine(memory=4 * GIB, cpu_kv_cache=GIB)
    assert asked == Machine(host=4 * GIB, cpu_kv_cache=GIB, cores=6)
    card = Device(index=0, total=80 * GIB)
    own = devices.machine(memory=0, cpu_kv_cache=GIB, gpus=(card,))
    assert own == Machine(host=int(85 * GIB), devices=(card,), cpu_kv_cache=GIB, cores=6)
