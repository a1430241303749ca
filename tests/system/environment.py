"""The daemon's own environment for a box: Python of that tree's release, at a path of its own.

A box has the distribution's Python only, and the folders of this machine's users are hidden from
services; so the developer's environment would be of no use in there.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from vllamad.runtimes.package_installer import installer_for

ROOT = Path(__file__).parents[2]
HOME = "/opt/vllamad"  # where the environment lies in a box
SOURCES = "/opt/vllamad-src"  # and what is tested
PYTHON = f"{HOME}/bin/python"
_SCRIPT = """#!{python}
import sys
from {name}.__main__ import main
sys.exit(main())
"""


def environment(cache: Path, tree: Path) -> Path:
    """An environment with what vllamad needs, for the Python of `tree`; made once."""
    version = python_version(tree)
    wanted = dependencies()
    key = hashlib.sha256("\n".join([_SCRIPT, version, *wanted]).encode()).hexdigest()[:12]
    folder = cache / f"environment-{version}-{key}"
    if not folder.exists():
        for old in cache.glob(f"environment-{version}-*"):
            shutil.rmtree(old)
        making = cache / f".environment-{version}"
        shutil.rmtree(making, ignore_errors=True)
        _make(making, version, wanted, cache / "environment.log")
        making.rename(folder)
    return folder


def python_version(tree: Path) -> str:
    """Such as 3.13: what /usr/bin/python3 of `tree` leads to."""
    return (tree / "usr/bin/python3").readlink().name.removeprefix("python")


def dependencies() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["dependencies"]


def _make(folder: Path, version: str, wanted: list[str], log: Path) -> None:
    """A venv is little: what `python -m venv` would make, were that Python able to run here."""
    site = folder / "lib" / f"python{version}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(f"/usr/bin/python{version}")
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    (site / "sources.pth").write_text(f"{SOURCES}\n")
    for name in ("vllamad", "vllamactl"):
        script = folder / "bin" / name
        script.write_text(_SCRIPT.format(python=PYTHON, name=name))
        script.chmod(0o755)
    uv = str(Path(sys.executable).with_name("uv"))
    installer = installer_for(sys.executable, log=log, progress=lambda _: None, uv=uv)
    installer.install(*wanted, target=site, options=["--python-version", version])


def commands(folder: Path) -> Path:
    """A folder with what the package has in /usr/bin."""
    folder.mkdir()
    for name in ("vllamad", "vllamactl"):
        (folder / name).symlink_to(f"{HOME}/bin/{name}")
    return folder


def sources(folder: Path) -> Path:
    """A copy of what is tested, readable for the service's user, and of the scripted engine."""
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in ("vllamad", "vllamactl", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
