"""What the machine offers: files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllamad.core.memory import GIB, Device, Machine
from vllamad.host import devices

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


def test_a_machine_is_an_operators_limit_or_most_of_main_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "main_memory", lambda: 100 * GIB)
    asked = devices.machine(memory=4 * GIB, cpu_kv_cache=GIB)
    assert asked == Machine(host=4 * GIB, cpu_kv_cache=GIB)
    card = Device(index=0, total=80 * GIB)
    own = devices.machine(memory=0, cpu_kv_cache=GIB, gpus=(card,))
    assert own == Machine(host=int(85 * GIB), devices=(card,), cpu_kv_cache=GIB)
