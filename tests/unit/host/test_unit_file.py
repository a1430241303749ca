"""The unit files, judged by systemd's own tools."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.system import exposure

UNITS = ROOT / "systemd"
SERVICES = ("vllamad.service", "vllamad@.service")
# What tells an instance from the one and only service; all else is the same.
ITS_OWN = {
    "Description", "PartOf", "AssertPathExists", "Requires", "After", "Sockets", "ExecStart",
    "ExecReload",
    "StateDirectory", "CacheDirectory", "LogsDirectory", "RuntimeDirectory", "WorkingDirectory",
    "Environment", "SyslogIdentifier", "WantedBy", "Also",
}  # fmt: skip

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
def units(tmp_path):
    """Copies that start what is there: verify complains of a missing executable."""
    for unit in UNITS.glob("vllamad*"):
        text = unit.read_text()
        for program in ("vllamad", "vllamactl"):
            if not Path(f"/usr/bin/{program}").exists():
                text = text.replace(f"/usr/bin/{program}", "/bin/true")
        (tmp_path / unit.name.replace("@.", "@11435.")).write_text(text)
    return tmp_path


def verify(units):
    files = sorted(str(unit) for unit in units.iterdir())
    return analyze("verify", "--man=no", "--recursive-errors=no", *files)


@needs_systemd_analyze
def test_systemd_has_nothing_to_remark(units):
    done = verify(units)
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd_analyze
def test_that_would_show_a_misspelled_key(units):
    unit = units / "vllamad.service"
    unit.write_text(unit.read_text().replace("KillMode=", "KilMode="))
    assert verify(units).returncode == 1


@needs_systemd_analyze
@pytest.mark.parametrize("name", ["vllamad.service", "vllamad@11435.service"])
def test_its_exposure_stays_low(units, name):
    done = analyze("security", "--offline=true", "--threshold=25", str(units / name))
    assert done.returncode == 0, done.stdout


@needs_systemd_analyze
def test_it_is_less_exposed_than_ollama(tmp_path):
    assert exposure.ours() < exposure.ollama(tmp_path) - 5


def settings(name):
    """The lines of a unit, less comments."""
    lines = (line.strip() for line in (UNITS / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_an_instance_is_confined_and_ended_like_the_one_and_only():
    one, instance = ([line for line in settings(name) if line.partition("=")[0] not in ITS_OWN]
                     for name in SERVICES)  # fmt: skip
    assert instance == one


@pytest.mark.parametrize("name", ["vllamad-http", "vllamad-control"])
def test_the_sockets_of_an_instance_differ_in_their_names_only(name):
    one, instance = settings(f"{name}.socket"), settings(f"{name}@.socket")
    differ = {line.partition("=")[0] for line in set(one) ^ set(instance)}
    assert differ == {"Description", "PartOf", "ListenStream", "Service"}


@pytest.mark.parametrize("key", ["RestartPreventExitStatus", "KillMode", "WatchdogSec", "Delegate"])
def test_the_service_of_a_user_is_ended_like_the_system_s(key):
    line = next(line for line in settings("vllamad.service") if line.startswith(f"{key}="))
    assert line in settings("user/vllamad.service")


@pytest.fixture(scope="module")
def service():
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]  # keys keep their case
    parser.read_string((UNITS / "vllamad.service").read_text())
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
