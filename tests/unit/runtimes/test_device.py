"""Which build of vLLM is installed where nobody says: never one for the CPU beside a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllamad.core.memory import GIB, Device
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import gpu_detection
from vllamad.host.machine.gpu_detection import Gpus
from vllamad.runtimes import install as module
from vllamad.runtimes.install import install_runtime


@pytest.mark.parametrize(
    ("found", "device"),
    [
        (Gpus(devices=(Device(index=0, total=GIB),)), "cuda"),
        (Gpus(missing="there is no NVIDIA GPU on the PCI bus"), "cpu"),
    ],
)
def test_it_is_the_one_for_what_is_there(
    monkeypatch: pytest.MonkeyPatch, found: Gpus, device: str
) -> None:
    monkeypatch.setattr(gpu_detection, "look", lambda: found)
    assert module._device_here() == device


def test_a_gpu_that_does_not_answer_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Gpus(missing="the driver is not loaded: /dev/nvidiactl is missing", may_come=True)
    monkeypatch.setattr(gpu_detection, "look", lambda: missing)
    with pytest.raises(RuntimeProblem, match="/dev/nvidiactl is missing") as caught:
        install_runtime(tmp_path / "runtimes", progress=lambda _: None)
    assert "--cpu" in caught.value.hint
    assert not (tmp_path / "runtimes").exists()


def test_a_driver_that_needs_a_reboot_is_no_reason_for_a_cpu_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_detection, "look", lambda: Gpus(missing="updated: reboot", reboot=True))
    with pytest.raises(RuntimeProblem, match="updated: reboot") as caught:
        install_runtime(tmp_path / "runtimes", progress=lambda _: None)
    assert caught.value.hint.startswith("reboot")
