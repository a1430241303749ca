"""What the runtime's Python is told and tells: orders, their environment, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.runtime_python import RUNTIME_FACTS, stub_python
from vllamad.core.memory import GIB, Device
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import gpu_detection
from vllamad.host.machine.gpu_detection import Gpus
from vllamad.runtimes.runtime_facts import RuntimeFacts, probe_runtime, run_probe, try_runtime

LAST = "INFO 12-01 00:00:00 [gpu.py:1] Using None for EOS token id"
MADE = """echo '{"tokens": 4, "wanted": 4}'"""


def facts_of(tmp_path: Path, answer: str, **changes: str) -> RuntimeFacts:
    python = stub_python(tmp_path / "env", answer)
    return RuntimeFacts(name="r", python=str(python), **(RUNTIME_FACTS | changes))  # type: ignore[arg-type]


@pytest.mark.case("F14")
@pytest.mark.parametrize(
    ("signal", "why"),
    [
        ("ILL", r"killed by SIGILL \(illegal instruction\)$"),
        ("BUS", r"killed by SIGBUS \(bus error\): /dev/shm has \d+ MiB of \d+ MiB free$"),
        ("SEGV", r"killed by SIGSEGV \(segmentation fault\)$"),
        ("KILL", r"killed by SIGKILL: not by the kernel's OOM killer"),
    ],
)
def test_a_trial_that_dies_of_a_signal_is_told_so_and_not_as_its_last_line(
    tmp_path: Path, signal: str, why: str
) -> None:
    facts = facts_of(tmp_path, f"echo '{LAST}' >&2; kill -{signal} $$")
    with pytest.raises(RuntimeProblem, match=why) as caught:
        try_runtime(facts, log=tmp_path / "log")
    assert "EOS" not in caught.value.message
    assert (tmp_path / "log").read_text() == f"{{}} printed by a library\n{LAST}\n"
    assert ("lacks an instruction" in caught.value.hint) == (signal == "ILL")


def test_a_convert_that_dies_of_a_signal_is_told_so_too(tmp_path: Path) -> None:
    python = stub_python(tmp_path / "env", "kill -ABRT $$")
    with pytest.raises(RuntimeProblem, match=r"killed by SIGABRT \(aborted\)$"):
        run_probe(str(python), "convert", "a", "b", timeout=9)


@pytest.mark.parametrize(
    "said",
    [
        "MemoryError",
        "ValueError: Free memory on device cuda:0 (0.9/79.2 GiB) on startup is less than desired"
        " GPU memory utilization (0.0189, 1.5 GiB).",
        "torch.OutOfMemoryError: CUDA out of memory.",
    ],
)
def test_a_shortage_of_memory_says_what_to_free(tmp_path: Path, said: str) -> None:
    facts = facts_of(tmp_path, f"echo '{said}' >&2; exit 1")
    with pytest.raises(RuntimeProblem) as caught:
        try_runtime(facts, log=tmp_path / "log")
    assert caught.value.hint.startswith("free memory first")


def test_fewer_tokens_than_asked_for_are_no_trial(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, """echo '{"tokens": 3, "wanted": 4}'""")
    with pytest.raises(RuntimeProblem, match="made 3 tokens of 4"):
        try_runtime(facts, log=tmp_path / "log")


def test_programs_of_the_runtime_come_first(tmp_path: Path) -> None:
    python = stub_python(tmp_path / "env", """echo "{\\"path\\": \\"$PATH\\"}" """)
    told = str(run_probe(str(python), "probe", timeout=9)["path"])
    assert told.startswith(f"{python.parent}:")


CARDS = (
    Device(index=0, total=80 * GIB, foreign=75 * GIB),
    Device(index=1, total=24 * GIB, foreign=GIB),
    Device(index=2, total=24 * GIB, foreign=20 * GIB),
)


@pytest.mark.parametrize(
    ("visible", "cards", "order"),
    [(None, CARDS, "try 0.0625 on 1"), ("0,2", (CARDS[0], CARDS[2]), "try 0.0187 on 0")],
)
def test_a_trial_asks_for_little_of_the_emptiest_card(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    cards: tuple[Device, ...],
    order: str,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(
        gpu_detection, "look", lambda hidden: Gpus(devices=cards) if hidden == visible else None
    )
    seen = tmp_path / "seen"
    words = f'echo "$3 $4 on $CUDA_VISIBLE_DEVICES $VLLM_USE_FLASHINFER_SAMPLER" > {seen}'
    facts = facts_of(tmp_path, f"{words}; {MADE}", device="cuda")
    try_runtime(facts, log=tmp_path / "log")
    assert seen.read_text() == f"{order} 0\n"


def test_a_trial_without_a_card_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_detection, "look", lambda hidden: Gpus(missing="NVML finds no GPU"))
    with pytest.raises(RuntimeProblem, match="cannot try the engine: NVML finds no GPU"):
        try_runtime(facts_of(tmp_path, MADE, device="cuda"), log=tmp_path / "log")


def test_facts_tell_whether_flashinfers_kernels_are_there(tmp_path: Path) -> None:
    python = stub_python(
        tmp_path / "env", f"echo '{json.dumps(RUNTIME_FACTS | {'flashinfer': True})}'"
    )
    assert probe_runtime(str(python), name="r").flashinfer
