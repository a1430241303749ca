"""A machine that cannot run a build of vLLM is told what is missing, before anything is fetched."""

from __future__ import annotations

import pytest

from vllamad.core.memory import GIB, Device
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import gpu_detection
from vllamad.host.machine.gpu_detection import Driver, Gpus
from vllamad.runtimes.fitness import refuse_unfit_cards, refuse_unfit_cpu

HASWELL = frozenset(["sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"])
SKYLAKE = HASWELL | frozenset(["avx512f", "avx512bw", "avx512dq", "avx512vl"])
GENOA = SKYLAKE | frozenset(["avx512_bf16", "avx512_vnni"])


@pytest.mark.parametrize("flags", [HASWELL, SKYLAKE, GENOA], ids=["AVX2", "AVX-512", "bf16"])
def test_a_cpu_with_what_the_build_needs_is_taken(flags: frozenset[str]) -> None:
    refuse_unfit_cpu("x86_64", flags)


@pytest.mark.case("F14")
@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (frozenset(["sse4_2", "avx", "f16c"]), "avx2, fma"),
        (frozenset(["fpu", "sse2"]), "avx2, fma, f16c"),
        (HASWELL | {"avx512f"}, "avx512bw, avx512dq, avx512vl"),
        (GENOA - {"avx512_vnni"}, "avx512_vnni"),
    ],
    ids=["Sandy Bridge", "QEMU's default", "Knights Landing", "masked by a hypervisor"],
)
def test_a_cpu_that_lacks_an_instruction_is_refused_with_its_name(
    flags: frozenset[str], missing: str
) -> None:
    with pytest.raises(RuntimeProblem, match=f"this CPU lacks {missing}, which") as caught:
        refuse_unfit_cpu("x86_64", flags)
    assert "-cpu host" in caught.value.hint


def test_other_architectures_list_other_features() -> None:
    refuse_unfit_cpu("aarch64", frozenset())


def cards(monkeypatch: pytest.MonkeyPatch, driver: Driver | None, *capabilities: tuple[int, int]):
    found = tuple(
        Device(index=index, total=24 * GIB, capability=capability)
        for index, capability in enumerate(capabilities)
    )
    monkeypatch.setattr(gpu_detection, "look", lambda: Gpus(devices=found))
    monkeypatch.setattr(gpu_detection, "driver", lambda: driver)


OLD, NEW = Driver("535.104.05", 12020), Driver("580.65.06", 13000)


@pytest.mark.parametrize(
    ("version", "driver"),
    [
        ("0.32.0", NEW),
        ("0.32.0", Driver("590.1", 13010)),
        ("0.32.0+cu130", NEW),
        ("0.32.0+cu129", OLD),
        ("0.10.2", OLD),
        ("0.32.0", None),
    ],
)
def test_a_driver_that_is_new_enough_or_not_known_to_be_too_old_is_taken(
    monkeypatch: pytest.MonkeyPatch, version: str, driver: Driver | None
) -> None:
    cards(monkeypatch, driver, (7, 0), (7, 5))
    refuse_unfit_cards(version)


@pytest.mark.parametrize("version", ["0.32.0", "0.24.0", "1.0", "0.32.0rc1", "0.32.0+cu130"])
def test_an_old_driver_is_refused_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    cards(monkeypatch, OLD, (8, 9))
    with pytest.raises(RuntimeProblem) as caught:
        refuse_unfit_cards(version)
    assert caught.value.message == (
        f"cannot install vllm {version}: it is built for CUDA 13, which needs NVIDIA driver 580 or"
        " newer; this machine has driver 535.104.05, for CUDA 12.2"
    )
    assert "--cpu" in caught.value.hint
    assert "--version" in caught.value.hint


def test_cards_that_are_all_too_old_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, NEW, (6, 1), (7, 0))
    with pytest.raises(RuntimeProblem, match=r"capability 7\.5 or more, the best here has 7\.0"):
        refuse_unfit_cards("0.32.0")


def test_a_capability_that_is_not_known_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, NEW, (0, 0))
    refuse_unfit_cards("0.32.0")


def test_without_a_card_a_build_for_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_detection, "look", lambda: Gpus(missing="there is no NVIDIA GPU"))
    with pytest.raises(RuntimeProblem, match="cannot install a cuda runtime: there is no NVIDIA"):
        refuse_unfit_cards("0.32.0")
