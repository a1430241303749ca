"""Which GPUs may be used: trees like the kernel's, and a driver that says what a test wants."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from vllamad.core.memory import GIB, Device
from vllamad.host.machine import gpu_detection

NODES = ("nvidiactl", "nvidia-uvm", "nvidia0")


class NVMLError(Exception):
    """As pynvml's."""


class Driver:
    """The part of pynvml we use; a card is (total, used) bytes, None one that does not answer."""

    NVMLError = NVMLError

    def __init__(self, *cards: tuple[int, int] | None, loads: str = "", counts: str = "") -> None:
        self.cards = cards
        self.loads = loads
        self.counts = counts
        self.open = 0

    def nvmlInit(self) -> None:
        if self.loads:
            raise NVMLError(self.loads)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        if self.counts:
            raise NVMLError(self.counts)
        return len(self.cards)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        if self.counts:
            raise NVMLError(self.counts)
        return 13000

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}ab-cdef"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:
        return [8, 9]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        card = self.cards[handle]
        if card is None:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(total=card[0], used=card[1])


TWO = Driver((80 * GIB, 5 * GIB), (24 * GIB, 0))
BIG = Device(index=0, total=80 * GIB, foreign=5 * GIB, capability=(8, 9))
SMALL = Device(index=1, total=24 * GIB, capability=(8, 9))


def pci(root: Path, address: str, vendor: str = "0x10de", kind: str = "0x030200") -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def nodes(root: Path, *names: str) -> None:
    (root / "dev").mkdir(exist_ok=True)
    for name in names:
        (root / "dev" / name).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with an NVIDIA card whose driver is loaded."""
    pci(tmp_path, "0000:01:00.0")
    nodes(tmp_path, *NODES)
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Driver:
    monkeypatch.setitem(sys.modules, "pynvml", driver)  # type: ignore[arg-type]
    return driver


def test_gpus_are_found_with_what_others_hold_on_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = use(monkeypatch, TWO)
    assert gpu_detection.look(root=root) == gpu_detection.Gpus(devices=(BIG, SMALL))
    assert driver.open == 0


def test_a_gpu_that_is_lost_does_not_hide_the_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = use(monkeypatch, Driver(None, (24 * GIB, 0)))
    assert gpu_detection.look(root=root).devices == (SMALL,)
    assert gpu_detection.look("1", root).devices == (SMALL,), "it keeps its number"
    assert driver.open == 0


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, (BIG, SMALL)),
        ("0", (BIG,)),
        ("1", (SMALL,)),
        ("1,0", (BIG, SMALL)),
        (" 0 , 1 ", (BIG, SMALL)),
        ("GPU-11", (SMALL,)),
        ("GPU-00ab-cdef,1", (BIG, SMALL)),
        ("0,7,1", (BIG,)),
        ("0,0,1", (BIG,)),
        ("0,-1,1", (BIG,)),
        ("0,GPU-", (BIG,)),
    ],
)
def test_what_cuda_visible_devices_hides_is_not_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, devices: Sequence[Device]
) -> None:
    use(monkeypatch, TWO)
    assert gpu_detection.look(visible, root).devices == devices


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "MIG-1", "2"])
def test_with_every_gpu_hidden_there_is_nothing_to_wait_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    use(monkeypatch, TWO)
    found = gpu_detection.look(visible, root)
    assert found.missing == f"CUDA_VISIBLE_DEVICES={visible} hides every GPU from vllamad"
    assert (found.devices, found.may_come) == ((), False)


@pytest.mark.parametrize(
    ("there", "driver", "missing"),
    [
        ((), TWO, "the driver is not loaded: /dev/nvidiactl is missing"),
        (NODES, Driver(loads="Driver Not Loaded"), "NVML says: Driver Not Loaded"),
        (NODES, Driver(counts="Unknown Error"), "NVML says: Unknown Error"),
        (NODES, Driver(), "NVML finds no GPU"),
        (("nvidiactl",), TWO, "the driver is not fully loaded: /dev/nvidia-uvm is missing"),
    ],
)
def test_what_is_missing_is_named_and_may_come(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: Sequence[str],
    driver: Driver,
    missing: str,
) -> None:
    pci(tmp_path, "0000:01:00.0")
    nodes(tmp_path, *there)
    use(monkeypatch, driver)
    found = gpu_detection.look(root=tmp_path)
    assert (found.devices, found.missing, found.may_come) == ((), missing, True)
    assert driver.open == 0


def test_without_a_card_there_is_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, TWO)
    assert gpu_detection.look(root=tmp_path) == gpu_detection.Gpus(
        missing="there is no NVIDIA GPU on the PCI bus"
    )


def test_a_container_that_does_not_see_the_bus_has_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, TWO)
    nodes(tmp_path, *NODES)
    assert gpu_detection.look(root=tmp_path).devices == (BIG, SMALL)


def test_windows_has_a_node_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, TWO)
    nodes(tmp_path, "dxg")
    assert gpu_detection.look(root=tmp_path).devices == (BIG, SMALL)


@pytest.mark.parametrize(
    ("vendor", "kind", "counts"),
    [
        ("0x10de", "0x030000", True),
        ("0x10DE", "0x030200", True),
        ("0x10de", "0x040300", False),  # the card's sound
        ("0x1002", "0x030000", False),
    ],
)
def test_a_card_is_a_display_controller_of_nvidias(
    tmp_path: Path, vendor: str, kind: str, counts: bool
) -> None:
    pci(tmp_path, "0000:01:00.0", vendor, kind)
    assert gpu_detection.cards(tmp_path) == (["0000:01:00.0"] if counts else [])


def test_what_cannot_be_read_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "sys/bus/pci/devices/0000:02:00.0").mkdir(parents=True)
    assert gpu_detection.cards(tmp_path) == []


def test_the_real_machine_is_asked_whatever_it_has() -> None:
    found = gpu_detection.look()
    assert bool(found.devices) != bool(found.missing)


@pytest.mark.parametrize(
    "said", ["Driver/library version mismatch", "RM has detected an NVML/RM version mismatch."]
)
def test_a_driver_that_was_updated_while_it_ran_asks_for_a_reboot(
    root: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    use(monkeypatch, Driver(loads=said))
    found = gpu_detection.look(root=root)
    assert (found.devices, found.may_come, found.reboot) == ((), False, True)
    assert "reboot" in found.missing
    assert said in found.missing


def test_the_driver_tells_its_version_and_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = use(monkeypatch, TWO)
    assert gpu_detection.driver() == gpu_detection.Driver("580.65.06", 13000)
    assert driver.open == 0


@pytest.mark.parametrize("driver", [Driver(loads="not loaded"), Driver(counts="lost")])
def test_a_driver_that_does_not_answer_has_no_version(
    monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    use(monkeypatch, driver)
    assert gpu_detection.driver() is None
    assert driver.open == 0
