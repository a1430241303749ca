"""The unit file, judged by systemd's own tools."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "vllamad.service"

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


@pytest.fixture
def unit(tmp_path):
    """A copy that starts what is there: verify complains of a missing executable."""
    text = UNIT.read_text()
    if not Path("/usr/bin/vllamad").exists():
        text = text.replace("/usr/bin/vllamad", "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    return str(copy)


@needs_systemd_analyze
def test_systemd_has_nothing_to_remark(unit):
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd_analyze
def test_that_would_show_a_misspelled_key(unit):
    Path(unit).write_text(Path(unit).read_text().replace("KillMode=", "KilMode="))
    assert analyze("verify", "--man=no", "--recursive-errors=no", unit).returncode == 1


@needs_systemd_analyze
def test_its_exposure_stays_low(unit):
    done = analyze("security", "--offline=true", "--threshold=25", unit)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]  # keys keep their case
    parser.read_string(UNIT.read_text())
    return parser["Service"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", "/usr/bin/vllamad"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "78"),
        ("KillMode", "mixed"),
        ("WatchdogSec", "30"),
        ("Delegate", "yes"),
    ],
)
def test_the_daemon_counts_on(service, key, value):
    assert service[key] == value


@pytest.mark.parametrize(
    "key", ["PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset", "ProtectControlGroups"]
)
def test_what_would_break_the_engine_is_not_asked_for(service, key):
    assert key not in service
