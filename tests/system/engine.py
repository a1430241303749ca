"""The real engine in a box: the runtime and the model that `make prepare` made, where a service may
read them and with the distribution's Python in place of the developer's.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.system.environment import python_version
from tests.system.service import Service
from vllamad.models.installed import InstalledModels
from vllamad.runtimes.runtime_facts import RuntimeFacts

MODEL = "smollm2:135m"
_RUNTIME = "/opt/vllamad-runtime"
_MODELS = "/opt/vllamad-models"


def problem(home: Path, tree: Path) -> str:
    """Why there is no real engine for the boxes of `tree`; empty: there is one."""
    site = _site(home)
    if site is None:
        return f"no engine runtime under {home}: run `make prepare`"
    made_for, there = site.parent.name, f"python{python_version(tree)}"
    return "" if made_for == there else f"the engine's runtime is for {made_for}, not {there}"


def binds(home: Path, tree: Path, work: Path) -> dict[Path, str]:
    """What of this machine a box needs to run the engine."""
    if problem(home, tree):
        return {}
    programs, settings = work / "bin", work / "pyvenv.cfg"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(f"/usr/bin/python{python_version(tree)}")
    settings.write_text("home = /usr/bin\n")
    return {
        home / "state" / "runtimes" / "current": _RUNTIME,
        programs: f"{_RUNTIME}/bin",
        settings: f"{_RUNTIME}/pyvenv.cfg",
        home / "state" / "models": _MODELS,
    }


def use(service: Service, home: Path) -> None:
    """Have the service run its workers on the real engine; the model is called `real`."""
    kept = (home / "state" / "runtimes" / "current" / "runtime.json").read_bytes()
    facts = msgspec.json.decode(kept, type=RuntimeFacts)
    moved = msgspec.structs.replace(facts, python=f"{_RUNTIME}/bin/python")
    runtimes = "/var/lib/vllamad/runtimes"
    service.write(f"{runtimes}/real/runtime.json", msgspec.json.encode(moved).decode())
    service.box.run("ln", "-sfn", "real", f"{runtimes}/current")
    installed = InstalledModels(home / "state" / "models", {}).find(MODEL)
    assert installed is not None, "run `make prepare`"
    folder = Path(_MODELS) / installed.folder.relative_to(home / "state" / "models")
    service.write("/etc/vllamad/config.toml", f'[model.real]\npath = "{folder}"\n')


def _site(home: Path) -> Path | None:
    found = sorted((home / "state" / "runtimes" / "current" / "lib").glob("python*/site-packages"))
    return found[0] if found else None
