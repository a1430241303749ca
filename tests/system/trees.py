"""The systems a box can boot: this machine's own, and one with a newer systemd.

What is not installed is installed where that is allowed (root, with apt); it says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.system.box import missing

HOST, NEWER = "host", "trixie"
NAMES = (HOST, NEWER)
RELEASES = ("bookworm", "trixie")  # bare trees, to install packages in

# Program: Debian's package.
_HOST_NEEDS = {
    "systemd-nspawn": "systemd-container",
    "dbus-daemon": "dbus",
    "nsenter": "util-linux",
}
_NEWER_NEEDS = {"mmdebstrap": "mmdebstrap"}
_PACKAGES = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,procps,iproute2"
_INSTALL_LIMIT = 600.0


class CannotBoot(Exception):
    """Why there can be no box here."""


def have_host() -> None:
    """Have all that booting this machine's own system takes. Raises CannotBoot."""
    if os.geteuid() != 0:
        raise CannotBoot("only root can boot a system in a container")
    install(_HOST_NEEDS)
    if not Path("/usr/bin/python3").exists():
        raise CannotBoot("there is no /usr/bin/python3")


def have(name: str, cache: Path) -> Path:
    """The root of the tree `name`, made first where it is not there. Raises CannotBoot."""
    have_host()
    if name == HOST:
        return Path("/")
    tree = cache / name
    if not tree.exists():
        install(_NEWER_NEEDS)
        cache.mkdir(parents=True, exist_ok=True)
        making = cache / f".{name}"
        shutil.rmtree(making, ignore_errors=True)
        print(f"→ system tests: making a tree of Debian {name}", flush=True)
        # fmt: off
        must("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}",
              name, str(making), *_mirror())
        # fmt: on
        making.rename(tree)
    return tree


def systemd_version(tree: Path) -> str:
    """Such as 252."""
    found = sorted((tree / "usr/lib/systemd").glob("libsystemd-shared-*.so"))
    found += sorted((tree / "usr/lib").glob("*/systemd/libsystemd-shared-*.so"))
    return found[0].stem.rpartition("-")[2].partition(".")[0] if found else "?"


def install(needs: dict[str, str]) -> None:
    """Have these programs, by the packages they are in. Raises CannotBoot."""
    absent = [needs[program] for program in missing(list(needs))]
    if not absent:
        return
    if missing(["apt-get"]) or os.geteuid() != 0:
        raise CannotBoot(f"not installed: {', '.join(absent)}")
    print(f"→ system tests: installing {', '.join(absent)}", flush=True)
    must("apt-get", "update", "-q")
    must("apt-get", "install", "-qy", "--no-install-recommends", *absent)


def unpacked(package: str, folder: Path) -> Path:
    """The files of a package, without installing it: nothing is started. Raises CannotBoot."""
    if missing(["apt-get"]) or os.geteuid() != 0:
        raise CannotBoot(f"not installed: {package}")
    folder.mkdir(parents=True)
    must("apt-get", "update", "-q")
    must("apt-get", "download", "-q", package, cwd=folder)
    (deb,) = folder.glob("*.deb")
    must("dpkg-deb", "-x", str(deb), str(folder))
    return folder


def _mirror() -> list[str]:
    """Where apt gets Debian itself from on this machine; mmdebstrap's own choice elsewhere."""
    words = ["$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", *words], capture_output=True, text=True
    )
    found = [one for one in asked.stdout.split() if "security" not in one]
    return found[:1]


def must(*command: str, cwd: Path | None = None) -> str:
    """Run a command; what it printed. Raises CannotBoot."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_LIMIT,
    )
    if done.returncode != 0:
        raise CannotBoot(f"{command[0]} failed: {done.stdout.strip()[-500:]}")
    return done.stdout
