"""The deb on a bare Debian: installed, used, upgraded under load, removed and purged."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.daemon import fake_home
from tests.system import trees
from tests.system.box import Box, Plan
from tests.system.clients import clients
from tests.system.environment import ROOT, SOURCES, python_version, sources
from tests.system.prepared import skipping, tree
from tests.system.service import SOCKETS, STATE, Service

pytestmark = pytest.mark.system

PYTHON = "/usr/lib/vllamad/bin/python"
DEBS = "/opt/debs"
CLIENTS = 50
UNITS = ("vllamad.service", *SOCKETS)


@dataclass
class Installer:
    """A bare Debian with the packages at hand."""

    box: Box
    steps: list[str] = field(default_factory=list[str])

    def apt(self, *words: str) -> str:
        """Run apt-get, and note how long it took."""
        began = time.monotonic()
        said = self.box.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qy", *words)
        self.steps.append(f"{' '.join(words)}: {time.monotonic() - began:.1f} s")
        return said

    def state(self, unit: str) -> tuple[str, str]:
        return self.box.show(unit, "ActiveState"), self.box.show(unit, "UnitFileState")


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Builds the package for a tree, and the next release of it; each once."""
    built: dict[str, Path] = {}

    def build(root: Path) -> Path:
        version = python_version(root)
        if version not in built:
            out = tmp_path_factory.mktemp("debs")
            command = [sys.executable, "packaging/package.py", "--python", version, str(out)]
            subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
            (first,) = out.glob("*.deb")
            next_release(first, out / "next.deb")
            first.rename(out / "first.deb")
            built[version] = out
        return built[version]

    return build


def next_release(deb: Path, out: Path) -> None:
    """The same package with a higher release: what an upgrade is to dpkg."""
    folder = out.with_suffix(".tree")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, folder], check=True)
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"^(Version: .*)-1$", r"\1-2", control.read_text(), flags=re.M))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder, out], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


@pytest.fixture
def installer(
    request: pytest.FixtureRequest, debs: Callable[[Path], Path], tmp_path: Path
) -> Generator[Installer]:
    root = tree(request.param)
    state = fake_home(tmp_path / "home", python=PYTHON) / "state"
    plan = Plan(
        root=root,
        read_only={debs(root): DEBS, state: STATE, sources(tmp_path / "sources"): SOURCES},
        volatile="overlay",
        target="multi-user.target",
    )
    with Box(request.param, plan, tmp_path / "box") as box:
        one = Installer(box)
        yield one
        print("\n".join(one.steps), box.journal("-u", "vllamad*")[-10_000:], sep="\n")


@pytest.mark.assertion(14)
@pytest.mark.parametrize("installer", trees.RELEASES, indirect=True)
def test_a_package_is_installed_used_upgraded_under_load_removed_and_purged(
    installer: Installer,
) -> None:
    box, service = installer.box, Service(installer.box)
    installer.apt("install", f"{DEBS}/first.deb")
    assert {unit: installer.state(unit) for unit in UNITS} == dict.fromkeys(
        UNITS, ("active", "enabled")
    )
    assert service.ask("GET", "/api/version").status == 200
    assert "vllamad" in box.run("vllamactl", "version")

    # As its operator would: a runtime, models, a setting, a reload.
    box.run("sh", "-c", f"cp -a {STATE}/. /var/lib/vllamad/ && chown -R vllamad: /var/lib/vllamad")
    service.configure()
    box.systemctl("restart", "vllamad")
    began = time.monotonic()
    service.ctl("model", "load", "a")
    assert service.chat().status == 200
    installer.steps.append(f"model load and chat: {time.monotonic() - began:.1f} s")

    before = service.pid
    with clients(box, CLIENTS, streams=5) as seen:
        installer.apt("install", f"{DEBS}/next.deb")
    installer.steps.append(f"upgrade under load: {seen}")
    assert service.pid != before
    assert set(seen.failed) <= {'503 {"error":"vllamad is shutting down"}'}
    assert seen.answered > CLIENTS
    assert box.run("dpkg-query", "-W", "-f", "${Version}", "vllamad").endswith("-2")
    assert service.chat().status == 200

    installer.apt("remove", "vllamad")
    assert [installer.state(unit)[0] for unit in UNITS] == ["inactive"] * 3
    assert not box.path("/usr/lib/vllamad").exists()
    assert box.path("/etc/vllamad/config.toml").exists()
    assert box.path("/var/lib/vllamad/models").exists()

    installer.apt("purge", "vllamad")
    left = box.run("find", "/etc", "/usr", "/var", "/run", "-xdev", "-name", "*vllamad*",
                   "-not", "-path", "/var/log/*", "-not", "-path", "/var/cache/apt/*")  # fmt: skip
    assert left.split() == []
    print("\n".join(installer.steps))


@pytest.mark.parametrize("installer", trees.RELEASES[:1], indirect=True)
def test_who_stopped_or_changed_it_finds_it_so_after_an_upgrade(installer: Installer) -> None:
    box = installer.box
    installer.apt("install", f"{DEBS}/first.deb")
    config = box.path("/etc/vllamad/config.toml")
    config.write_text('[scheduler]\nkeep_alive = "1h"\n')
    box.systemctl("disable", "--now", *UNITS)
    installer.apt("install", f"{DEBS}/next.deb")
    assert {unit: installer.state(unit) for unit in UNITS} == dict.fromkeys(
        UNITS, ("inactive", "disabled")
    )
    assert "1h" in config.read_text()


@pytest.mark.parametrize("installer", trees.RELEASES[:1], indirect=True)
def test_instances_are_upgraded_and_removed_with_it(installer: Installer) -> None:
    box, name = installer.box, "vllamad@11435.service"
    installer.apt("install", f"{DEBS}/first.deb")
    box.run("cp", "/etc/vllamad/config.toml", "/etc/vllamad/11435.toml")
    box.systemctl("enable", "--now", name)
    before = box.show(name, "MainPID")
    installer.apt("install", f"{DEBS}/next.deb")
    assert installer.state(name) == ("active", "enabled")
    assert box.show(name, "MainPID") != before
    installer.apt("purge", "vllamad")
    assert "vllamad" not in box.run("ps", "-e", "-o", "args=")
    assert box.run("find", "/etc", "/var/lib", "/run", "-name", "*vllamad*",
                   "-not", "-path", "/var/lib/apt/*") == ""  # fmt: skip


@pytest.mark.parametrize("installer", trees.RELEASES[:1], indirect=True)
def test_a_port_that_is_taken_does_not_break_the_installation(installer: Installer) -> None:
    box = installer.box
    program = "import socket, time; s = socket.create_server(('127.0.0.1', 11434)); time.sleep(600)"
    box.run("systemd-run", "--unit=other", "/usr/bin/python3", "-c", program)
    installer.apt("install", f"{DEBS}/first.deb")
    assert installer.state("vllamad.service")[0] != "active"
    box.systemctl("stop", "other")
    box.systemctl("start", "vllamad")
    assert Service(box).ask("GET", "/api/version").status == 200


def test_the_rpm_has_the_same_files_and_scripts(tmp_path: Path) -> None:
    with skipping("cannot look into an rpm"):
        trees.install({"rpm": "rpm"})
    command = [sys.executable, "packaging/package.py", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    (rpm,), (deb,) = tmp_path.glob("*.rpm"), tmp_path.glob("*.deb")

    def asked(*words: str) -> str:
        done = subprocess.run(words, check=True, capture_output=True)
        return done.stdout.decode(errors="replace")

    listed = {line.rstrip("/") for line in asked("rpm", "-qlp", str(rpm)).splitlines()}
    lines = [line.split(maxsplit=5)[5] for line in asked("dpkg-deb", "-c", str(deb)).splitlines()]
    files = {line.partition(" -> ")[0].removeprefix(".") for line in lines}
    ours = {f"/usr/share/doc/vllamad/{name}" for name in ("copyright", "changelog.Debian.gz")}
    assert {name for name in files if not name.endswith("/")} - ours <= listed
    assert "/usr/share/licenses/vllamad/LICENSE" in listed
    assert str(ROOT) not in asked("dpkg-deb", "--fsys-tarfile", str(deb))
    scripts = asked("rpm", "-qp", "--scripts", str(rpm))
    assert "systemd-sysusers vllamad.conf" in scripts
    assert "python(abi) = " in asked("rpm", "-qp", "--requires", str(rpm))
