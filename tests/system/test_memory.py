"""A worker's memory limit, on a kernel that keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.daemon import fake_config
from tests.system import environment, trees, vm
from tests.system.prepared import cache, tree

pytestmark = pytest.mark.vm

HOGS = """
import signal
kept = []
signal.signal(signal.SIGUSR1, lambda *_: kept.append(bytearray(400 << 20)))
"""
SLOW = "[Service]\nTimeoutStartSec=300\nWatchdogSec=120\n"


@pytest.mark.assertion(15)
def test_a_worker_beyond_its_memory_ends_alone_and_it_is_told(state: Path, tmp_path: Path):
    root = tree(trees.NEWER)
    path = f"/opt/hog:{environment.SOURCES}/tests/fakes/site:{environment.SOURCES}"
    config = fake_config(
        root=Path(environment.SOURCES),
        more=f"[model.a]\nmemory_max = '128MiB'\n[model.a.env]\nPYTHONPATH = {json.dumps(path)}",
    )
    files = {
        "etc/vllamad/config.toml": config,
        "etc/systemd/system/vllamad.service.d/slow.conf": SLOW,
        "opt/hog/sitecustomize.py": HOGS,
        "opt/probe.py": Path(__file__).with_name("probe_memory.py").read_text(),
    }
    disk = vm.ram_disk(root, cache(), state, files, tmp_path)
    found = vm.results(vm.boot(vm.kernel(cache()), disk))
    assert (found["first"][:3], found["second"][:3]) == ("200", "200")
    assert found["limit"] == str(128 << 20)
    assert "its memory_max is 128 MiB" in found["told"]
    assert (found["pid"], found["restarts"]) == (found["pid_after"], "0")
