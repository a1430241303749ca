"""AMX is used where the CPU has it and the kernel lets us, and hidden from the engine where not."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vllamad.host.machine import amx
from vllamad.host.machine.amx import ABSENT, GIVEN, REFUSED, UNWANTED

SAPPHIRE_RAPIDS = "processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile amx_int8\n"
GENOA = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n"
GRACE = "processor\t: 0\nFeatures\t: fp asimd sve2 bf16\n"
PACKAGE = Path(amx.__file__).parents[2]


class Kernel:
    """The system call's stand-in: counts how often it is asked."""

    def __init__(self, *, gives: bool) -> None:
        self.gives = gives
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.gives


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def asked(tmp_path: Path, cpuinfo: str, kernel: Kernel, machine: str = "x86_64") -> str:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    return amx.ask(kernel, machine, tmp_path / "cpuinfo")


@pytest.mark.case("F14")
@pytest.mark.parametrize(("gives", "answer"), [(True, GIVEN), (False, REFUSED)])
def test_the_kernel_is_asked_where_the_cpu_lists_amx(
    tmp_path: Path, gives: bool, answer: str
) -> None:
    kernel = Kernel(gives=gives)
    assert asked(tmp_path, SAPPHIRE_RAPIDS, kernel) == answer
    assert kernel.asked == 1


@pytest.mark.parametrize(
    ("cpuinfo", "machine"), [(GENOA, "x86_64"), (GRACE, "aarch64"), (SAPPHIRE_RAPIDS, "aarch64")]
)
def test_nothing_is_asked_elsewhere(tmp_path: Path, cpuinfo: str, machine: str) -> None:
    kernel = Kernel(gives=True)
    assert asked(tmp_path, cpuinfo, kernel, machine) == ABSENT
    assert kernel.asked == 0


def test_without_a_list_of_features_nothing_is_asked(tmp_path: Path) -> None:
    assert amx.ask(Kernel(gives=True), "x86_64", tmp_path / "none") == ABSENT


@pytest.mark.parametrize(
    ("limit", "answer"),
    [
        ("AVX512_CORE_BF16", UNWANTED),
        ("avx2", UNWANTED),
        ("AVX512_CORE_AMX", GIVEN),
        ("ALL", GIVEN),
        ("default", GIVEN),
    ],
)
def test_the_limit_of_onednn_is_the_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, answer: str
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert asked(tmp_path, SAPPHIRE_RAPIDS, Kernel(gives=True)) == answer


@pytest.fixture
def torch_cpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The part of torch that vLLM asks, on a CPU that lists AMX."""
    torch, cpu = ModuleType("torch"), ModuleType("torch.cpu")

    def get_capabilities() -> dict[str, object]:
        return {"amx_tile": True, "amx_fp16": True, "avx512_f": True, "architecture": "x86_64"}

    vars(cpu)["get_capabilities"] = get_capabilities
    vars(cpu)["_is_amx_tile_supported"] = lambda: True
    vars(cpu)["_is_avx512_supported"] = lambda: True
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.cpu", cpu)
    return cpu


@pytest.mark.case("F14")
@pytest.mark.parametrize("answer", [REFUSED, UNWANTED])
def test_amx_that_may_not_be_used_is_hidden_from_the_engine(
    torch_cpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "to be restored")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert amx.settle(lambda: answer) == answer
    assert not torch_cpu._is_amx_tile_supported()
    assert torch_cpu._is_avx512_supported()
    assert torch_cpu.get_capabilities() == {
        "amx_tile": False, "amx_fp16": False, "avx512_f": True, "architecture": "x86_64",
    }  # fmt: skip
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_FP16"
    assert capsys.readouterr().err == f"AMX: {answer}; the engine does without\n"


def test_a_torch_without_a_list_of_capabilities_hides_it_too(
    torch_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    del vars(torch_cpu)["get_capabilities"]
    amx.settle(lambda: UNWANTED)
    assert not torch_cpu._is_amx_tile_supported()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2", "the operator's limit stays"


@pytest.mark.parametrize("answer", [ABSENT, GIVEN])
def test_otherwise_the_engine_sees_the_cpu_as_it_is(torch_cpu: ModuleType, answer: str) -> None:
    assert amx.settle(lambda: answer) == answer
    assert torch_cpu._is_amx_tile_supported()
    assert "ONEDNN_MAX_CPU_ISA" not in os.environ


@pytest.mark.case("F14")
def test_on_this_machine_the_kernels_own_record_agrees() -> None:
    """ARCH_GET_XCOMP_PERM lists what this process may use: with AMX, bit 18 is set after asking."""
    answer = amx.ask()
    if answer != GIVEN:
        assert platform.machine() != "x86_64" or answer in (ABSENT, REFUSED)
        return
    allowed = ctypes.c_uint64()
    kernel = ctypes.CDLL(None, use_errno=True)
    assert kernel.syscall(158, 0x1022, ctypes.byref(allowed)) == 0
    assert allowed.value >> 18 & 1


RECORDER = """
import os
def settle():
    with open(os.environ["ASKED"], "a") as file:
        print(os.getpid(), file=file)
"""
SPAWNING = """
import json, multiprocessing, os, sys
if __name__ == "__main__":
    method = multiprocessing.get_context("spawn")
    child = method.Process(target=print, args=("child",))
    child.start()
    child.join()
    print(json.dumps([os.getpid(), child.pid]), flush=True)
"""


@pytest.mark.case("F14")
def test_the_launcher_and_what_the_engine_spawns_ask(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    server = packages / "vllm/entrypoints/openai/api_server.py"
    server.parent.mkdir(parents=True)
    server.write_text(SPAWNING)
    done, pids = inside_a_runtime(tmp_path, "engine/launch_vllm.py", packages=packages)
    assert pids == json.loads(done.stdout.splitlines()[-1])


@pytest.mark.case("F14")
@pytest.mark.parametrize("order", [["try", "1"], ["convert", "in", "out"], ["probe"]])
def test_each_order_to_the_runtime_asks(tmp_path: Path, order: list[str]) -> None:
    done, pids = inside_a_runtime(tmp_path, "runtimes/runtime_probe.py", *order)
    assert done.returncode != 0, "there is no vLLM"
    assert len(pids) == 1


def inside_a_runtime(
    tmp_path: Path, file: str, *words: str, packages: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], list[int]]:
    """Run one of the two files as a runtime's Python does, and return which processes asked."""
    tree = tmp_path / "vllamad"
    (tree / file).parent.mkdir(parents=True)
    shutil.copy(PACKAGE / file, tree / file)
    (tree / "host/machine").mkdir(parents=True)
    (tree / "host/machine/amx.py").write_text(RECORDER)
    done = subprocess.run(
        [sys.executable, "-P", str(tree / file), *words],
        env={
            "PATH": os.environ["PATH"],
            "ASKED": str(tmp_path / "asked"),
            "PYTHONPATH": str(packages or ""),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, [int(line) for line in (tmp_path / "asked").read_text().split()]
