"""Promises of verify, prune, info, and of a pull that is left to the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes.control_daemon import ControlDaemon
from tests.support.ctl_runs import RunCtl
from vllamad.host.machine import devices, gpu_detection, gpu_info
from vllamad.host.machine.gpu_detection import Gpus
from vllamad.host.machine.gpu_info import Card, Cards
from vllamad.protocol.control import Progress
from vllamad.protocol.problem import Problem

VERIFY, PRUNE, PULL = "/v1/models/verify", "/v1/models/prune", "/v1/models/pull"
FOUND = [
    Progress(
        status="unneeded", file="hub/a", problem="a revision that no model uses", total=1_500_000
    ),
    Progress(status="unneeded", file="hub/b", problem="a file that no model uses", total=500_000),
    Progress(status="removed", done=True),
]


def verifying(*problems: str) -> list[Progress]:
    steps = [
        Progress(status="verifying", model="m:latest", file=f"f{number}", problem=problem)
        for number, problem in enumerate(problems)
    ]
    return [Progress(status="verifying"), *steps, Progress(status="verified", done=True)]


def test_what_was_verified_is_counted(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", VERIFY, verifying("", ""))
    assert run("verify").out.startswith("✓ 1 model verified in 0.")
    assert run("verify", "m").out.startswith("✓ m verified in 0.")
    assert [request.body for request in daemon.asked] == [b'{"model":""}', b'{"model":"m"}']
    last = run("verify", "--json").events()[-1]
    assert (last["event"], last["models"], last["bad"]) == ("done", ["m:latest"], [])


def test_bad_files_are_named_and_the_exit_code_is_1(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", VERIFY, verifying("", "is missing"))
    ran = run("verify", "-q")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "✗ m:latest f1: is missing\n"
        "✗ 1 file is not as downloaded\n"
        "  `vllamactl pull MODEL` downloads a model's files again\n"
    )


def test_bad_files_are_events_and_then_an_error(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", VERIFY, verifying("is missing", "is short"))
    ran = run("verify", "--json")
    *_, first, second, last = ran.events()
    assert first == {"event": "bad", "model": "m:latest", "file": "f0", "problem": "is missing"}
    assert second["file"] == "f1"
    assert isinstance(error := last["error"], dict)
    assert (ran.code, error["message"]) == (1, "2 files are not as downloaded")


def test_prune_says_what_and_how_much(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", PRUNE, FOUND)
    assert run("prune").out == (
        "  • hub/a  1.5 MB, a revision that no model uses\n"
        "  • hub/b  500 KB, a file that no model uses\n"
        "✓ freed 2.0 MB, 2 items\n"
    )
    assert run("prune", "--dry-run").out.endswith("✓ would free 2.0 MB, 2 items\n")
    assert [request.body for request in daemon.asked] == [b'{"dry_run":false}', b'{"dry_run":true}']


def test_prune_in_scripts(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", PRUNE, FOUND)
    assert run("prune", "-q").out == "hub/a\nhub/b\n"
    answer = run("prune", "--json", "--dry-run").json()
    assert isinstance(answer, dict)
    assert (answer["dry_run"], answer["freed"]) == (True, 2_000_000)
    first = {"path": "hub/a", "size": 1_500_000, "why": "a revision that no model uses"}
    assert answer["removed"][0] == first


def test_a_tidy_store_has_nothing_to_prune(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", PRUNE, FOUND[-1:])
    assert run("prune").out == "✓ nothing to remove\n"


def test_a_detached_pull_is_left_once_it_has_begun(daemon: ControlDaemon, run: RunCtl) -> None:
    steps = [Progress(status="pulling manifest"), Progress(status="pulling a", total=100)]
    daemon.says("POST", PULL, steps)
    ran = run("pull", "--detach", "m")
    assert (ran.code, ran.out) == (
        0,
        "→ vllamad continues to pull m; watch it with `vllamactl pull m`\n",
    )
    assert daemon.asked[0].body == b'{"model":"m","detach":true}'
    assert run("pull", "--json", "--detach", "m").events()[-1] == {
        "event": "detached",
        "model": "m",
    }


def test_a_detached_pull_that_cannot_begin_says_why(daemon: ControlDaemon, run: RunCtl) -> None:
    problem = Problem(kind="model-not-found", message="pull model manifest: file does not exist")
    daemon.says("POST", PULL, [Progress(status="pulling manifest"), Progress(error=problem)])
    ran = run("pull", "--detach", "m")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "✗ pull model manifest: file does not exist")


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No daemon, and a home of one's own."""
    monkeypatch.setenv("VLLAMAD_HOME", str(tmp_path))
    monkeypatch.delenv("VLLAMAD_CONTROL", raising=False)
    return tmp_path


def test_info_works_without_a_daemon(nobody: Path, run: RunCtl) -> None:
    found = run("info", "--json").json()
    assert isinstance(found, dict)
    assert found["versions"]["daemon"] is None
    assert found["paths"]["state"] == str(nobody / "state")
    assert found["cpu"]["cores"] == len(os.sched_getaffinity(0))


def test_info_tells_of_every_gpu(
    nobody: Path, run: RunCtl, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(
        index=0,
        name="NVIDIA H100",
        memory_total=80_000_000_000,
        memory_free=79_000_000_000,
        compute_capability="9.0",
    )
    monkeypatch.setattr(gpu_info, "describe", lambda: Cards("570.1", (card,)))
    monkeypatch.setattr(gpu_detection, "look", lambda visible: Gpus())
    ran = run("info")
    assert "0    NVIDIA H100, 80 GB, 79 GB free, compute capability 9.0\n" in ran.out
    assert "driver       570.1\n" in ran.out
    assert run("info", "-q").out == "NVIDIA H100\n"


def test_info_says_why_there_is_no_gpu(
    nobody: Path, run: RunCtl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu_detection, "look", lambda visible: Gpus(missing="the driver is not loaded")
    )
    assert "  GPUs\n    none    the driver is not loaded\n" in run("info").out


def test_a_machine_that_names_no_processor_has_its_kind(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert devices.cpu_name(tmp_path) == os.uname().machine
