"""Running pip and uv: what a person sees of it, and what is said when it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllamad.errors import RuntimeProblem
from vllamad.runtimes.installer import clean_environment, condensed, reason, stream


@pytest.mark.parametrize(
    ("line", "news"),
    [
        (
            "  Downloading torch-2.13.0-cp311-none-linux.whl (190.1 MB)",
            "downloading torch (190.1 MB)",
        ),
        ("  Downloading https://h/a/x_y-1-py3-none-any.whl (1.2 GB)", "downloading x_y (1.2 GB)"),
        ("Downloading torch (180.2MiB)", "downloading torch (180.2MiB)"),
        ("  Downloading six-1.16-py3-none-any.whl (11 kB)", ""),
        ("  Downloading six-1.16-py3-none-any.whl (9.9 MB)", ""),
        ("Collecting six", ""),
        ("Installing collected packages: a, b", "installing"),
        ("Prepared 170 packages in 3.2s", "installing 170 packages"),
        ("  Building wheel for thing (setup.py): started", "building thing"),
    ],
)
def test_only_what_takes_time_is_news(line, news):
    assert condensed(line) == news


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("ERROR: first\nERROR: No match for x\n", "No match for x"),
        ("error: No way\n  cause: Because no\n    version.\n", "Because no version."),
        ("  × No way\n  ╰─▶ Because no\n      version.\n\nhint: y\n", "Because no version."),
        ("Traceback\nOSError: no space\n[noise] leaked 3 objects\n", "OSError: no space"),
        ("nothing special\nended\n\n", "ended"),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_the_reason_is_the_last_line_that_says_why(output, why):
    assert reason(output) == why


def test_a_failed_program_leaves_its_log_and_says_where(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeProblem, match=r"^no room left$") as caught:
        list(
            stream(["sh", "-c", "echo one; echo error: no room left >&2; exit 3"], os.environ, log)
        )
    assert str(log) in caught.value.hint
    assert log.read_text() == "one\nerror: no room left\n"


def test_a_program_that_is_not_there_is_a_runtime_problem(tmp_path):
    with pytest.raises(RuntimeProblem, match="cannot run /no/such"):
        list(stream(["/no/such"], os.environ, tmp_path / "log"))


def test_leaving_early_ends_the_program(tmp_path):
    command = ["sh", "-c", "echo $$; exec sleep 600"]
    lines = stream(command, os.environ, tmp_path / "log")
    pid = int(next(lines))
    lines.close()
    assert not Path("/proc", str(pid)).exists()


def test_packages_of_the_caller_do_not_leak_into_the_other_environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "http://kept")
    environment = clean_environment()
    assert "PYTHONPATH" not in environment
    assert environment["PIP_INDEX_URL"] == "http://kept"
