"""Builds or repairs one runtime: its environment, its packages, and a trial of its engine.

Downloads are kept when it is interrupted, and the next try continues with them. The file that
makes the folder a runtime is written last. Knows no other runtimes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from vllamad.errors import RuntimeProblem
from vllamad.runtimes import packages
from vllamad.runtimes.installed_runtimes import FACTS_FILE, write_json_file
from vllamad.runtimes.number_type import with_number_times
from vllamad.runtimes.package_installer import Installer, Report, installer_for, make_environment
from vllamad.runtimes.runtime_facts import RuntimeFacts, probe_runtime, try_runtime

PACKAGES_FILE = "packages.json"
# vLLM requires them, but the default index has only CUDA builds, which break the import of vLLM
# with a CPU build of torch. Text models need none of them.
_COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


class PackageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The packages of an environment, recorded when an install is complete."""

    spec: str
    versions: dict[str, str]


def build_runtime(
    runtime: Path, spec: str, progress: Report, *, thorough: bool = False
) -> tuple[RuntimeFacts, list[str]]:
    """Build the environment in `runtime`, or continue a partial one, and try its engine.

    With `thorough`, each file of a complete environment is checked too. Returns its facts, and a
    line for each repair. Raises RuntimeProblem.
    """
    log = log_path(runtime)
    log.unlink(missing_ok=True)
    try:
        python, mended = _environment(runtime, log, progress)
        installer = installer_for(
            python, log=log, progress=progress, downloads=downloads_folder(runtime)
        )
        mended += _have_packages(installer, runtime, spec, thorough=thorough)
        progress("asking the engine what it knows")
        installed_at = datetime.now(UTC).isoformat(timespec="seconds")
        facts = probe_runtime(python, name=runtime.name, installed_at=installed_at)
        progress("starting the engine on a tiny model")
        try_runtime(facts, log=log)
    except RuntimeProblem as problem:
        kept = "the downloads are kept, and the next try continues with them"
        problem.hint = f"{problem.hint}; {kept}" if problem.hint else kept
        raise
    facts = with_number_times(facts, progress)
    write_json_file(runtime / FACTS_FILE, facts)
    log.unlink(missing_ok=True)
    return facts, mended


def write_package_record(runtime: Path, spec: str) -> None:
    """Record that all packages of `spec` are installed, with their versions."""
    write_json_file(
        runtime / PACKAGES_FILE,
        PackageRecord(spec=spec, versions=packages.package_versions(runtime)),
    )


def read_package_record(runtime: Path) -> PackageRecord | None:
    """The recorded packages; None where no install was completed."""
    try:
        return msgspec.json.decode((runtime / PACKAGES_FILE).read_bytes(), type=PackageRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def log_path(runtime: Path) -> Path:
    """The log of installers and engine, kept until the runtime is complete."""
    return runtime.with_name(f"{runtime.name}.log")


def downloads_folder(runtime: Path) -> Path:
    """The folder of downloads, kept until the runtime is complete; see installer_for."""
    return runtime.parent / ".downloads" / runtime.name.rpartition("-")[0]


def _environment(runtime: Path, log: Path, progress: Report) -> tuple[str, list[str]]:
    """Make sure the environment has a Python that works. Returns it, and a line for a repair."""
    python = str(runtime / "bin" / "python")
    exists = (runtime / "pyvenv.cfg").exists()
    if exists and _works(python):
        return python, []
    finished = (runtime / FACTS_FILE).exists()
    shutil.rmtree(runtime, ignore_errors=True)
    progress("making an environment")
    made = make_environment(runtime, log)
    return made, ["its Python was missing: the environment was rebuilt"] if finished else []


def _works(python: str) -> bool:
    """Whether that Python runs and packages can be installed into it."""
    needed = "pass" if shutil.which("uv") else "import pip"
    try:
        return (
            subprocess.run([python, "-c", needed], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


def _have_packages(installer: Installer, runtime: Path, spec: str, *, thorough: bool) -> list[str]:
    """Install missing packages and replace damaged ones. Returns a line for each of the damaged."""
    before = read_package_record(runtime)
    whole = before is not None and before.spec == spec
    faults = {} if whole and not thorough else _faults(installer, runtime)
    if before is None or not whole:
        _install_fetched(installer, runtime)
        _install(
            installer, spec
        )  # also installs that were interrupted: an installer does not see them
        _remove_misfits(installer, runtime)
        wanted = packages.package_versions(runtime)
        broken = {name: fault for name, fault in faults.items() if name in wanted}
    else:
        wanted = before.versions
        broken = faults | _differences(wanted, packages.package_versions(runtime))
    replaced = [name for name in broken if name in wanted]
    if replaced:
        installer.progress(f"replacing {', '.join(replaced)}")
        pinned = [f"{name}=={wanted[name]}" for name in replaced]
        _install(installer, *pinned, deps=False, anew=True)
    write_package_record(runtime, spec)
    return [f"{name}: {broken[name]}" for name in replaced]


def _install_fetched(installer: Installer, runtime: Path) -> None:
    """Install the wheels that an earlier try has downloaded.

    Of several wheels of a package the last is used, which the resolver chose; the next step
    replaces a wrong version.
    """
    wheels = sorted(
        downloads_folder(runtime).glob("*.whl"), key=lambda path: path.stat().st_mtime_ns
    )
    last = {wheel.name.partition("-")[0].lower(): str(wheel) for wheel in wheels}
    if not last:
        return
    installer.progress(f"installing {len(last)} packages that are downloaded already")
    try:
        installer.install(*last.values(), deps=False)
    except RuntimeProblem as problem:
        installer.progress(f"downloading them again: {problem.message}")
        shutil.rmtree(downloads_folder(runtime), ignore_errors=True)


def _faults(installer: Installer, runtime: Path) -> dict[str, str]:
    there = packages.package_versions(runtime)
    if set(there) <= {"pip", "setuptools"}:
        return {}
    installer.progress(f"checking the files of {len(there)} installed packages")
    packages.remove_unrecorded(runtime)
    return packages.damaged_packages(runtime)


def _differences(wanted: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    return {
        name: f"version {there[name]} in place of {version}" if name in there else "missing"
        for name, version in wanted.items()
        if there.get(name) != version
    }


def _install(installer: Installer, *specs: str, deps: bool = True, anew: bool = False) -> None:
    try:
        installer.install(*specs, deps=deps, anew=anew)
    except RuntimeProblem as problem:
        if "+cpu" not in problem.message:
            raise
        try:
            _install_with_torch_index(installer, *specs, deps=deps, anew=anew)
        except RuntimeProblem as again:
            raise RuntimeProblem(
                f"cannot find the CPU build of torch: {again.message}",
                hint="add PyTorch's index of CPU builds to pip's extra-index-url; " + again.hint,
            ) from problem


def _install_with_torch_index(installer: Installer, *specs: str, deps: bool, anew: bool) -> None:
    """Install with uv, which knows PyTorch's own index of CPU builds; pip does not."""
    installer.progress("looking for the CPU build of torch in PyTorch's own index")
    with tempfile.TemporaryDirectory() as scratch:
        uv = installer.uv
        if uv is None:
            replace(installer, downloads=None).install("uv", target=Path(scratch))
            uv = f"{scratch}/bin/uv"
        uv_installer = installer_for(
            installer.python,
            log=installer.log,
            progress=installer.progress,
            downloads=installer.downloads,
            uv=uv,
        )
        uv_installer.install(*specs, deps=deps, anew=anew, options=["--torch-backend", "cpu"])


def _remove_misfits(installer: Installer, runtime: Path) -> None:
    """Remove packages built for CUDA where torch is a CPU build."""
    found = packages.package_versions(runtime)
    if not found.get("torch", "").endswith("+cpu"):
        return
    misfits = [name for name in _COMPANIONS if not found.get(name, "+cpu").endswith("+cpu")]
    if misfits:
        installer.progress(f"removing {', '.join(misfits)}: built for CUDA, but torch for the CPU")
        installer.uninstall(*misfits)
