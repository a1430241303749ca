"""Running pip and uv: what a person sees of it, and what is said when it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllamad.errors import RuntimeProblem
from vllamad.runtimes.installer import (
    clean_environment,
    condensed,
    installer_for,
    reason,
    stream,
)


@pytest.mark.parametrize(
    ("line", "news"),
    [
        (
            "  Downloading torch-2.13.0-cp311-none-linux.whl (190.1 MB)",
            "downloading torch (190.1 MB)",
        ),
        ("  Downloading https://h/a/x_y-1-py3-none-any.whl (1.2 GB)", "downloading x_y (1.2 GB)"),
        (
            "  Using cached torch-2.13.0-cp311-none-linux.whl (190.1 MB)",
            "torch is fetched already (190.1 MB)",
        ),
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


OFFLINE_PIP = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/x/
ERROR: Could not find a version that satisfies the requirement x (from versions: none)
ERROR: No matching distribution found for x
"""
OFFLINE_UV = """\
error: Request failed after 3 retries in 9.6s
  cause: Failed to fetch: https://pypi.org/simple/x/
  cause: error sending request for url (https://pypi.org/simple/x/)
  cause: dns error
  cause: failed to lookup address information: Temporary failure in name resolution
"""
RETRIED = """\
WARNING: Retrying (Retry(total=4)) after connection broken by 'Read timed out': /simple/x/
ERROR: Cannot install a and b: conflict
"""


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("ERROR: first\nERROR: No match for x\n", "No match for x"),
        ("error: No way\n  cause: Because no\n    version.\n", "Because no version."),
        ("  × No way\n  ╰─▶ Because no\n      version.\n\nhint: y\n", "Because no version."),
        ("Traceback\nOSError: no space\n[noise] leaked 3 objects\n", "OSError: no space"),
        ("nothing special\nended\n\n", "ended"),
        ("", "it said nothing"),
        ("WARNING 12-01 00:00:00 [x.py:1] slow\n", "it said nothing"),
        ("cannot find vLLM\nINFO 12-01 00:00:00 [x.py:1] Using None for EOS\n", "cannot find vLLM"),
        ("no room\n/a/b.py:7: UserWarning: old\n  warnings.warn(\n", "no room"),
        ("no room\n[W1201 00:00:00.1 x.cpp:1] Warning: y\n[notice] new pip\n", "no room"),
        ("no room\n[rank0]:[W1201 00:00:00.1 x.cpp:1] y\nDEPRECATION: z\n", "no room"),
        ("ERROR: bad\n(EngineCore pid=7) WARNING 12-01 00:00:00 [x.py:1] slow\n", "bad"),
        (OFFLINE_PIP, "the package index cannot be reached: Temporary failure in name resolution"),
        (OFFLINE_UV, "the package index cannot be reached: Temporary failure in name resolution"),
        (RETRIED, "Cannot install a and b: conflict"),
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


def test_a_program_that_is_killed_is_told_so(tmp_path):
    with pytest.raises(RuntimeProblem, match=r"^killed by SIGSEGV \(segmentation fault\)$"):
        list(stream(["sh", "-c", "echo fine; kill -SEGV $$"], os.environ, tmp_path / "log"))


@pytest.fixture
def tidy(monkeypatch, tmp_path):
    """A user whose cache can be used, and pip without uv."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    return monkeypatch


def options(tmp_path):
    installer = installer_for(
        "python", log=tmp_path / "log", progress=print, downloads=tmp_path / "downloads"
    )
    assert not {"PIP_NO_CACHE_DIR", "UV_NO_CACHE"} & set(installer.environment) or (
        "--cache-dir" not in installer.options
    )
    return installer.options


def test_downloads_are_kept_in_the_users_own_cache(tidy, tmp_path):
    assert "--cache-dir" not in options(tmp_path)
    tidy.setenv("XDG_CACHE_HOME", str(tmp_path / "not/made/yet"))
    assert "--cache-dir" not in options(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PIP_NO_CACHE_DIR", "1"), ("UV_NO_CACHE", "1"), ("HOME", ""), ("HOME", "/proc/1")],
    ids=["pip's is off", "uv's is off", "no home", "of another user"],
)
def test_downloads_are_kept_beside_the_runtimes_where_that_cannot_be_used(
    tidy, tmp_path, name, value
):
    tidy.setenv(name, value)
    tidy.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert options(tmp_path)[-2:] == ("--cache-dir", str(tmp_path / "downloads"))
