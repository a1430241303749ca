"""Make the project's own environment: `python3 packaging/environment.py FOLDER`; with a file of
requirements as the second argument, an environment with those alone.

Runs on a bare Python 3.11 or later, so standard library only. The environment is light: the
engine, with its torch, gets one of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def main(folder: Path, requirements: Path | None = None) -> int:
    began = time.monotonic()
    print(f"→ environment: {folder.name}, with pip or uv", flush=True)
    log = ROOT / "build" / "environment.log"
    log.unlink(missing_ok=True)
    sys.path.insert(0, str(ROOT))
    from vllamad.errors import VllamadError
    from vllamad.runtimes.package_installer import installer_for, make_environment

    try:
        python = str(folder / "bin" / "python")
        if not works(python):
            shutil.rmtree(folder, ignore_errors=True)
            python = make_environment(folder, log)
        installer = installer_for(python, log=log, progress=lambda what: print(f"  • {what}"))
        if requirements is None:
            installer.install("--editable", str(ROOT), *developers_packages())
        else:
            installer.install("-r", str(requirements))
    except VllamadError as problem:
        print(f"✗ environment: {problem.message}\n  {problem.hint}", file=sys.stderr)
        return 1
    log.unlink()
    print(f"✓ environment: {folder.name}  {time.monotonic() - began:.0f} s", flush=True)
    return 0


def works(python: str) -> bool:
    """True if an environment exists that only needs an update."""
    try:
        return subprocess.run([python, "-c", ""], check=False).returncode == 0
    except OSError:
        return False


def developers_packages() -> list[str]:
    """Return the packages of the group `dev`; the pip of Python 3.11 has no groups."""
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["dependency-groups"]["dev"]


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        raise SystemExit(
            f"✗ environment: cannot use Python {sys.version.split()[0]}, 3.11 is the oldest\n"
            "  choose another one: make PYTHON=/path/to/python3.11"
        )
    raise SystemExit(main(*(Path(word).absolute() for word in sys.argv[1:])))
