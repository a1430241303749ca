"""The real engine on this CPU: in the type that is fast here, by its own OpenMP, on its cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL
from vllamad.core.cpu import choose_number_type
from vllamad.host.machine.amx import cpu_flags
from vllamad.runtimes.installed_runtimes import current_name, read_runtime
from vllamad.runtimes.number_type import measure_number_types
from vllamad.runtimes.runtime_facts import RuntimeFacts
from vllamad.supervisor.engine_runtimes import openmp_of

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runtime(prepared: Path) -> RuntimeFacts:
    runtimes = prepared / "state" / "runtimes"
    facts = read_runtime(runtimes, current_name(runtimes))
    if facts.device != "cpu":
        pytest.skip("the runtime is built for GPUs")
    return facts


def chosen(runtime: RuntimeFacts) -> str:
    times = measure_number_types(runtime).times
    assert min(times.bfloat16, times.float16, times.float32) > 0, times
    return choose_number_type("BF16", times, wide_fits=True, pooling=False).name


def test_a_cpu_with_bfloat16_computes_in_it(runtime: RuntimeFacts) -> None:
    if not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        pytest.skip("this CPU has no bfloat16")
    assert chosen(runtime) == "bfloat16"


def test_a_cpu_without_bfloat16_computes_in_float32(
    runtime: RuntimeFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "avx512f" not in cpu_flags():
        pytest.skip("this CPU has no AVX-512")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")  # on one that has it: as if it had none
    assert chosen(runtime) == "float32"


def test_the_engine_and_nothing_else_has_its_openmp_and_the_threads_that_are_told(
    runtime: RuntimeFacts, real: Daemon
) -> None:
    library, _ = openmp_of(runtime)
    if not library:
        pytest.skip("the runtime has no libiomp5")
    real.chat(MODEL, options={"num_predict": 1}).raise_for_status()
    (told,) = (one for one in real.workers() if one["model"] == MODEL)
    mapped = {process.pid: maps_of(process.pid) for process in real.processes()}
    engines = {pid for pid, maps in mapped.items() if "libtorch_cpu" in maps}
    assert engines
    assert all(library in mapped[pid] for pid in engines)
    shims = {pid for pid in mapped if "shim.py" in command_of(pid)}
    assert shims
    assert not any("libiomp5" in mapped[pid] for pid in shims)
    assert all(f"OMP_NUM_THREADS={told['threads']}" in environment_of(pid) for pid in engines)
    said = Path(told["log_file"]).read_text(errors="replace")
    assert "libiomp is not found" not in said.rpartition("Starting vLLM")[0][-20_000:]


def maps_of(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def environment_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")
