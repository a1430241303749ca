"""What is written down of a worker, and with which of those that were kept one goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path

import msgspec
import pytest

from tests.support.kv_caches import flat
from vllamad.config.settings import Paths, Settings, WorkerSettings
from vllamad.core.launch import Lora, Plan, Spec
from vllamad.core.memory import Need, Placement
from vllamad.host.log_files import LogPosition
from vllamad.supervisor.workers import handover
from vllamad.supervisor.workers.handover import (
    Handover,
    HandoverRecord,
    WorkerFacts,
    look_for_survivors,
)
from vllamad.supervisor.workers.worker_paths import log_file, run_folder, worker_id

PLAN = Plan(
    spec=Spec(
        model="a:latest",
        folder="/models/a",
        need=Need(weights=1, cache=flat(2), context_length=2048),
        keep_alive=inf,
        args={"seed": 1, "eager": True, "share": 0.5, "word": "x"},
        env={"A": "b"},
        loras=(Lora(name="l", folder="/l", rank=8),),
    ),
    placement=Placement(devices=(0, 1), per_device=1, kv_cache=1, share=0.5),
)
NAME = worker_id("a:latest")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(
        state=tmp_path / "state",
        cache=tmp_path / "cache",
        logs=tmp_path / "logs",
        run=tmp_path / "run",
        control=tmp_path / "control",
    )
    return Settings(paths=paths, worker=WorkerSettings(keep_workers=True))


def facts_of(settings: Settings) -> WorkerFacts:
    return WorkerFacts(
        plan=PLAN,
        leader=4711,
        context_length=2048,
        log_began=10,
        run=str(run_folder(settings.paths.run, "a:latest")),
        log_file=str(log_file(settings.paths.logs, "a:latest")),
    )


def memory(text: bytes = b"") -> int:
    descriptor = os.memfd_create("test")
    os.pwrite(descriptor, text, 0)
    return descriptor


@pytest.fixture
def descriptor() -> Generator[int]:
    one = memory()
    yield one
    os.close(one)


@pytest.mark.parametrize("keep_alive", [None, 0.0, 12.5, inf])
def test_a_note_says_what_was_written(
    settings: Settings, descriptor: int, keep_alive: float | None
) -> None:
    facts = facts_of(settings)
    HandoverRecord(descriptor, keep_alive=keep_alive, log_read=99).write(facts)
    assert HandoverRecord(descriptor).read() == (facts, LogPosition(10, 99), keep_alive)


def test_what_changes_is_written_down_at_once(settings: Settings, descriptor: int) -> None:
    note = HandoverRecord(descriptor)
    note.write(facts_of(settings))
    note.keep_alive(inf)
    note.log_read(1 << 60)
    assert HandoverRecord(descriptor).read() == (facts_of(settings), LogPosition(10, 1 << 60), inf)
    note.keep_alive(None)
    assert HandoverRecord(descriptor).read()[2] is None


def test_what_a_later_version_adds_is_passed_over(settings: Settings, descriptor: int) -> None:
    told = msgspec.to_builtins(facts_of(settings)) | {"colour": "red"}
    HandoverRecord(descriptor).write(facts_of(settings))
    os.pwrite(descriptor, json.dumps(told).encode(), 64)
    assert HandoverRecord(descriptor).read()[0] == facts_of(settings)


@contextmanager
def held() -> Generator[tuple[socket.socket, int, subprocess.Popen[bytes]]]:
    """Our end of a socket, and a process that lives until that is closed, as a shim does."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(["cat"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    try:
        yield ours, os.pidfd_open(process.pid), process
    finally:
        process.kill()
        process.wait()


async def survivors(
    settings: Settings, found: list[int], monkeypatch: pytest.MonkeyPatch, name: str = NAME
) -> Handover:
    monkeypatch.setattr(handover, "stored", lambda *_: {name: found})
    return await look_for_survivors(settings, {"NOTIFY_SOCKET": "/nobody/listens"})


@pytest.mark.integration
async def test_a_worker_that_was_kept_is_found_in_whatever_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held() as (control, shim, process):
        note = memory()
        HandoverRecord(note, keep_alive=5.0).write(facts_of(settings))
        number = control.detach()
        found = (await survivors(settings, [note, number, shim], monkeypatch)).survivors
        (one,) = found.values()
        assert (one.facts, one.keep_alive) == (facts_of(settings), 5.0)
        assert (one.link.control.fileno(), one.link.shim, one.link.leader) == (number, shim, 4711)
        assert process.poll() is None
        one.link.control.close()
        os.close(shim)
        os.close(note)


BAD: dict[str, tuple[Callable[[WorkerFacts], object], str]] = {
    "another version": (
        lambda facts: msgspec.structs.replace(facts, version=2),
        "its record has version 2",
    ),
    "another home": (
        lambda facts: msgspec.structs.replace(facts, run="/elsewhere"),
        "its files are elsewhere: /elsewhere",
    ),
    "no plan": (lambda facts: {"version": 1}, "missing required field `plan`"),
    "no facts": (lambda facts: [], "list indices must be integers"),
}


@pytest.mark.integration
@pytest.mark.parametrize("why", BAD)
async def test_one_that_we_cannot_go_on_with_is_ended_and_why_is_said(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    change, reason = BAD[why]
    with held() as (control, shim, process):
        note = memory()
        HandoverRecord(note).write(facts_of(settings))
        text = json.dumps(msgspec.to_builtins(change(facts_of(settings)))).encode()
        os.ftruncate(note, 64)
        os.pwrite(note, text, 64)
        kept = await survivors(settings, [control.detach(), shim, note], monkeypatch)
        assert kept.survivors == {}
        assert process.wait(60) == 0, "nobody holds it any more"
    assert reason in reasons(caplog)


@pytest.mark.integration
async def test_one_is_ended_where_workers_are_not_kept_any_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    off = replace(settings, worker=WorkerSettings(keep_workers=False))
    with held() as (control, shim, process):
        note = memory()
        HandoverRecord(note).write(facts_of(settings))
        kept = await survivors(off, [control.detach(), shim, note], monkeypatch)
        assert (kept.store, kept.survivors) == (None, {})
        assert process.wait(60) == 0
    assert reasons(caplog) == "keep_workers is off"


@pytest.mark.integration
async def test_one_that_has_ended_is_nobody_to_go_on_with(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with held() as (control, shim, process):
        process.kill()
        process.wait()
        note = memory()
        HandoverRecord(note).write(facts_of(settings))
        found = [control.detach(), shim, note]
        assert (await survivors(settings, found, monkeypatch)).survivors == {}
    assert reasons(caplog) == "it has ended since"


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_part_of_a_life_line_is_none(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    found = [memory() for _ in range(count)]
    assert (await survivors(settings, found, monkeypatch)).survivors == {}
    assert reasons(caplog) == f"{count} descriptors do not make a worker"


async def test_without_a_service_manager_it_is_said_that_workers_are_not_kept(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await look_for_survivors(settings, {})).store is None
    assert reasons(caplog) == "the daemon was not started by systemd"


def reasons(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    fields: dict[str, str] = record.__dict__["fields"]
    return fields["why"]
