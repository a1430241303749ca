"""The command `vllamad` as a whole: its exit statuses, and a start that never gets anywhere."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, ROOT, free_port, until
from tests.support.log_lines import event_lines
from vllamad import __version__
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration


@pytest.fixture
def home() -> Generator[Path]:
    """A short one: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        yield Path(folder)


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "VLLAMAD_HOME": str(home),
        **more,
    }


def vllamad(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vllamad", *words],
        cwd=home,
        env=environment(home, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@contextmanager
def started(home: Path, **more: str) -> Generator[tuple[subprocess.Popen[bytes], Path]]:
    """A daemon that nobody waits for to get ready, and its log."""
    log = home / "log"
    listen = f"VLLAMAD_SERVER_LISTEN=127.0.0.1:{free_port()}".split("=")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllamad"],
            cwd=home,
            env=environment(home, **{listen[0]: listen[1]}, **more),
            stdin=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_a_good_configuration_is_said_to_be_good(home: Path) -> None:
    (home / "vllamad.toml").write_text("[scheduler]\nkeep_alive = '10m'\n")
    done = vllamad(home, "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"the configuration is good: {home / 'vllamad.toml'}\n"


def test_faults_are_named_one_a_line_and_nothing_is_started(home: Path) -> None:
    (home / "vllamad.toml").write_text("[server]\nlistn = 1\ngateways = 0\n")
    done = vllamad(home, "--check-config")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "server.listn",
        "server.gateways",
    ]
    assert sorted(path.name for path in home.iterdir()) == ["vllamad.toml"]


def test_a_fault_in_a_catalogue_of_models_is_named_too(home: Path) -> None:
    folder = home / ".config" / "vllamad"
    folder.mkdir(parents=True)
    (folder / "catalog.toml").write_text("[mine]\nabout = 1\n")
    done = vllamad(home, "--check-config")
    assert (done.returncode, done.stdout) == (1, "")
    assert "catalog.toml: mine: expected `str`, got `int` - at `about`" in done.stderr


def test_a_daemon_with_a_faulty_configuration_is_not_worth_a_restart(home: Path) -> None:
    done = vllamad(home, "--set", "server.gateways=0")
    assert done.returncode == 78
    assert "server.gateways: must be a whole number from 1 to 64, not 0" in done.stderr


def test_a_taken_address_is_named_before_anything_is_started(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        done = vllamad(home, "--listen", listen)
    assert done.returncode == 1
    assert f"vllamad: cannot listen on {listen}: Address already in use\n" in done.stderr
    assert "stop it, or set server.listen" in done.stderr
    assert not event_lines(done.stderr, LogEvent.GATEWAY_STARTED)
    assert not (home / "run" / "control.sock").exists()


def test_a_folder_that_cannot_be_made_is_named_with_advice(home: Path) -> None:
    (home / "state").write_text("in the way")
    done = vllamad(home, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert f"vllamad: cannot make {home / 'state'}: File exists\n  run vllamad as" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, f"vllamad {__version__}\n"),
        (["--help"], 0, "exit status: 0 stopped as asked"),
        (["--frobnicate"], 2, "unrecognized arguments: --frobnicate"),
        (["serve"], 2, "unrecognized arguments: serve"),
        (["--set", "server.listen"], 2, "'server.listen' is not KEY=VALUE"),
    ],
)
def test_words_on_the_command_line(home: Path, words: list[str], code: int, said: str) -> None:
    done = vllamad(home, *words)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_gets_nowhere_can_be_stopped(home: Path, number: int) -> None:
    # Only gateways import it, so they die and die again, and the daemon never gets ready.
    (home / "quart").mkdir()
    (home / "quart" / "__init__.py").write_text("raise SystemExit(3)")
    with started(home, PYTHONPATH=f"{home}:{ROOT}") as (process, log):
        until(lambda: len(event_lines(log.read_text(), LogEvent.GATEWAY_DIED)) >= 2, limit=PATIENCE)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == 0
        assert "exit status 3" in log.read_text()
        assert not event_lines(log.read_text(), LogEvent.DAEMON_READY)
