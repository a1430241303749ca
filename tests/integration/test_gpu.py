"""A runtime for GPUs on a machine without one: refused with the reason, never run on the CPU."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support.daemon import daemon, fake_config
from vllamad.host.machine import gpu_detection
from vllamad.runtimes.runtime_facts import RuntimeFacts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(gpu_detection.cards()), reason="this machine has an NVIDIA GPU"),
]


def test_a_load_is_refused_with_what_is_missing(home: Path) -> None:
    file = home / "state" / "runtimes" / "fake" / "runtime.json"
    facts = msgspec.json.decode(file.read_bytes(), type=RuntimeFacts)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(facts, device="cuda")))
    with daemon(home, config=fake_config()) as one:
        answer = one.chat("a")
        assert answer.status_code == 500
        assert "there is no NVIDIA GPU on the PCI bus" in answer.json()["error"]
        told = one.ctl("model", "load", "a", code=1)
        assert "there is no NVIDIA GPU on the PCI bus" in told
        assert "vllamactl runtime install --cpu" in told
        assert one.workers() == []
        assert one.processes() == []
