"""Promises of `logs` where it asks the journal: what it asks for, and what it says when it cannot.

The real journal answers in tests/system.
"""

from __future__ import annotations

import os
import stat

import pytest

from tests.support.ctl_runs import RunCtl
from vllamactl.commands.logs import journal_command

COMMON = ["journalctl", "--no-pager", "--quiet"]


@pytest.mark.parametrize(
    ("model", "follow", "json", "asked"),
    [
        ("", False, False, ["--output=short-iso", "--no-hostname", "--identifier=vllamad"]),
        ("", True, True, ["--output=json", "--follow", "--identifier=vllamad"]),
        (
            "SmolLM2", False, True,
            ["--output=json", "--identifier=vllm", "--identifier=vllamad", "MODEL=SmolLM2:latest"],
        ),
    ],
)  # fmt: skip
def test_the_journal_is_asked_for_the_model_in_full(model, follow, json, asked):
    assert journal_command(model, 7, follow, json=json) == [*COMMON, "--lines=7", *asked]


def program(folder, text, monkeypatch):
    """Put a journalctl of our own first."""
    path = folder / "journalctl"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_the_journal_has_is_printed_with_nothing_that_steers_a_terminal(
    tmp_path, monkeypatch, run: RunCtl
):
    program(tmp_path, "printf 'one\\033[31m\\ntwo\\n'", monkeypatch)
    assert run("logs").out == "one�[31m\ntwo\n"


def test_an_empty_journal_is_no_silence(tmp_path, monkeypatch, run: RunCtl):
    program(tmp_path, "exit 0", monkeypatch)
    ran = run("logs")
    assert (ran.code, ran.out) == (0, "")
    assert "the journal has no such entries" in ran.err


def test_who_may_not_read_the_journal_is_told_so(tmp_path, monkeypatch, run: RunCtl):
    program(tmp_path, "echo 'No journal files were opened' >&2; exit 1", monkeypatch)
    ran = run("logs", "--journal", "m")
    assert ran.code == 4
    assert "No journal files were opened" in ran.err
    assert "systemd-journal" in ran.err


def test_without_journalctl_the_file_is_named(tmp_path, monkeypatch, run: RunCtl):
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = run("logs")
    assert ran.code == 1
    assert "journalctl is not installed" in ran.err


def test_a_name_that_is_none_is_refused_before_anything_runs(run: RunCtl):
    ran = run("logs", "--journal", "a b")
    assert ran.code == 1
    assert "invalid model name" in ran.err
