"""Running pip and uv: what a person sees of it, and what is said when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tests.support.daemon import is_alive, until
from vllamad.errors import RuntimeProblem
from vllamad.runtimes.package_installer import (
    Installer,
    _Keeping,
    clean_environment,
    installer_for,
    output_reason,
    progress_text,
    run_command,
)


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
    assert progress_text(line) == news


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
        ("", "it printed nothing"),
        ("WARNING 12-01 00:00:00 [x.py:1] slow\n", "it printed nothing"),
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
    assert output_reason(output) == why


def test_a_failed_program_leaves_its_log_and_says_where(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeProblem, match=r"^no room left$") as caught:
        list(
            run_command(
                ["sh", "-c", "echo one; echo error: no room left >&2; exit 3"], os.environ, log
            )
        )
    assert str(log) in caught.value.hint
    assert log.read_text() == "one\nerror: no room left\n"


def test_a_program_that_is_not_there_is_a_runtime_problem(tmp_path):
    with pytest.raises(RuntimeProblem, match="cannot run /no/such"):
        list(run_command(["/no/such"], os.environ, tmp_path / "log"))


def test_leaving_early_ends_the_program(tmp_path):
    command = ["sh", "-c", "echo $$; exec sleep 600"]
    lines = run_command(command, os.environ, tmp_path / "log")
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
        list(run_command(["sh", "-c", "echo fine; kill -SEGV $$"], os.environ, tmp_path / "log"))


@pytest.fixture
def tidy(monkeypatch, tmp_path):
    """A user whose cache can be used, and uv."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def uv_options(tmp_path):
    return installer_for(
        "/bin/false", log=tmp_path / "log", progress=print, downloads=tmp_path / "kept", uv="uv"
    ).options


def test_uv_keeps_what_it_fetches_in_the_users_own_cache(tidy, tmp_path):
    assert "--cache-dir" not in uv_options(tmp_path)
    tidy.setenv("XDG_CACHE_HOME", str(tmp_path / "not/made/yet"))
    assert "--cache-dir" not in uv_options(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("UV_NO_CACHE", "1"), ("HOME", ""), ("HOME", "/proc/1")],
    ids=["it is off", "no home", "of another user"],
)
def test_uv_keeps_it_beside_the_runtimes_where_that_cannot_be_used(tidy, tmp_path, name, value):
    tidy.setenv(name, value)
    tidy.setattr(os, "access", lambda path, mode: not str(path).startswith("/proc"))
    assert uv_options(tmp_path)[-2:] == ("--cache-dir", str(tmp_path / "kept/uv"))


PIP = """#!{python}
import os, sys, time, zipfile
folder = os.environ["TMPDIR"] + "/pip-unpack-1"
os.makedirs(folder)
print("  Downloading half", flush=True)
open(folder + "/half-1-py3-none-any.whl", "wb").write(b"PK")
print("  Downloading whole", flush=True)
with zipfile.ZipFile(folder + "/whole-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("whole.py", "")
print("ready", flush=True)
deadline = time.monotonic() + 20
while os.stat(folder + "/whole-1-py3-none-any.whl").st_nlink < 2:
    assert time.monotonic() < deadline, "it is not kept"
print({last!r}, flush=True)
os.unlink(folder + "/whole-1-py3-none-any.whl")
sys.exit(1)
"""


def pip_that_fails(tmp_path, last: str) -> Installer:
    """A pip that fetches one and a half wheels, fails, and tidies up behind itself."""
    python = tmp_path / "python"
    python.write_text(PIP.format(python=sys.executable, last=last))
    python.chmod(0o755)
    return Installer(
        python=str(python), uv=None, options=(), environment=dict(os.environ),
        log=tmp_path / "log", progress=lambda _: None, downloads=tmp_path / "kept",
    )  # fmt: skip


def test_what_a_failing_pip_has_fetched_is_kept(tmp_path):
    installer = pip_that_fails(tmp_path, "ERROR: No space left on device")
    with pytest.raises(RuntimeProblem, match="No space left"):
        installer.install("x")
    assert [one.name for one in (tmp_path / "kept").glob("*.whl")] == ["whole-1-py3-none-any.whl"]


def test_what_a_killed_pip_has_left_is_kept_by_the_next_one(tmp_path):
    left = tmp_path / "kept/tmp/pip-unpack-0"
    left.mkdir(parents=True)
    with zipfile.ZipFile(left / "left-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("left.py", "")
    with pytest.raises(RuntimeProblem):
        pip_that_fails(tmp_path, "ERROR: no").install("x")
    assert (tmp_path / "kept/left-1-py3-none-any.whl").exists()


def test_what_does_not_match_the_hashes_of_the_index_is_not_kept(tmp_path):
    installer = pip_that_fails(tmp_path, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES")
    with pytest.raises(RuntimeProblem):
        installer.install("x")
    assert not (tmp_path / "kept").exists()


def test_an_installer_dies_with_the_command_that_started_it(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from vllamad.runtimes.package_installer import run_command
lines = run_command(['sh', '-c', 'echo $$; exec sleep 600'], os.environ, Path('{tmp_path}/log'))
print(next(lines), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    until(lambda: not is_alive(pid))


def test_folders_that_pip_removes_meanwhile_do_not_matter(tmp_path):
    keeping = _Keeping(tmp_path)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for change in (Path.mkdir, Path.rmdir):
                for number in range(50):
                    change(tmp_path / f"tmp/pip-{number}")

    pip = threading.Thread(target=come_and_go)
    pip.start()
    try:
        for _ in range(300):
            keeping.look()
    finally:
        over.set()
        pip.join()
