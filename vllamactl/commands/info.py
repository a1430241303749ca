"""What this machine has: CPU, memory, GPUs, runtimes, versions and paths; needs no daemon."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.commands.config import read_settings
from vllamactl.render import blocks
from vllamad.config.paths import default_paths
from vllamad.errors import ConfigError, NotAllowed, NotReachable
from vllamad.protocol import control

PROC = Path("/proc")


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    cores: int


class MachineMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory, in bytes."""

    total: int
    available: int


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    name: str
    memory_total: int
    memory_free: int
    compute_capability: str


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    client: str
    daemon: str | None  # None: it does not answer
    python: str
    kernel: str
    driver: str  # NVIDIA's; empty without


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """`gpu_problem` says why a GPU that might be expected cannot be used."""

    cpu: Cpu
    memory: MachineMemory
    gpus: list[Gpu]
    gpu_problem: str
    runtimes: list[control.RuntimeInfo]
    versions: Versions
    paths: dict[str, object]


class _Config(msgspec.Struct, frozen=True):
    paths: dict[str, object] = {}


def info(call: CommandContext) -> None:
    """Show what this machine has, and what the daemon makes of it if it answers."""
    found = _look(call)
    call.screen.answer(found, _text(found), [gpu.name for gpu in found.gpus])


def _look(call: CommandContext) -> Info:
    # Here, as these are slow and no other command needs them.
    from importlib.metadata import version

    from vllamad.host import devices, gpu_detection, gpu_info
    from vllamad.runtimes.installed_runtimes import list_runtimes

    described = gpu_info.describe()
    problem = gpu_detection.look(call.environ.get("CUDA_VISIBLE_DEVICES")).missing
    daemon, paths = _daemon(call)
    folder = Path(str(paths["state"])) / "runtimes" if "state" in paths else None
    return Info(
        cpu=Cpu(model=devices.cpu_name(PROC), cores=len(os.sched_getaffinity(0))),
        memory=_memory(PROC),
        gpus=[Gpu(**asdict(card)) for card in described.cards],
        gpu_problem=problem,
        runtimes=list_runtimes(folder) if folder else [],
        versions=Versions(
            client=version("vllamad"),
            daemon=daemon,
            python=platform.python_version(),
            kernel=platform.release(),
            driver=described.driver,
        ),
        paths=paths,
    )


def _daemon(call: CommandContext) -> tuple[str | None, dict[str, object]]:
    """The daemon's version and its paths; without it, the paths it would use if started here."""
    try:
        found = call.client.get("/v1/version", control.Version).version
        return found, call.client.get("/v1/config", _Config).paths
    except (NotReachable, NotAllowed):
        pass
    try:
        paths = read_settings(call.environ).paths
    except ConfigError as error:
        call.screen.note(error.message)
        home = Path(call.environ.get("HOME", "/"))
        paths = default_paths(call.environ, os.geteuid(), home)
    names = ("state", "cache", "logs", "run", "control")
    return None, {name: str(getattr(paths, name)) for name in names}


def _memory(proc: Path) -> MachineMemory:
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) << 10 for words in lines}
    return MachineMemory(total=sizes["MemTotal"], available=sizes.get("MemAvailable", 0))


def _text(found: Info) -> str:
    memory = found.memory
    machine = [
        ("cpu", f"{found.cpu.model}, {found.cpu.cores} cores"),
        ("memory", f"{human.size(memory.total)}, {human.size(memory.available)} available"),
    ]
    versions = found.versions
    return blocks(
        {
            "Machine": machine,
            "GPUs": list(_gpu_rows(found)),
            "Runtimes": _runtime_rows(found.runtimes),
            "Versions": [
                ("vllamactl", versions.client),
                ("vllamad", versions.daemon or "does not answer"),
                ("python", versions.python),
                ("kernel", versions.kernel),
                *([("driver", versions.driver)] if versions.driver else []),
            ],
            "Paths": [(name, str(path)) for name, path in found.paths.items() if path],
        }
    )


def _gpu_rows(found: Info) -> Iterator[tuple[str, ...]]:
    for gpu in found.gpus:
        size = f"{human.size(gpu.memory_total)}, {human.size(gpu.memory_free)} free"
        yield str(gpu.index), f"{gpu.name}, {size}, compute capability {gpu.compute_capability}"
    if found.gpu_problem:
        yield ("none" if not found.gpus else "problem", found.gpu_problem)


def _runtime_rows(runtimes: Sequence[control.RuntimeInfo]) -> list[tuple[str, ...]]:
    if not runtimes:
        return [("none", "install one with `vllamactl runtime install`")]
    return [
        (one.name, f"{one.device}{', in use' if one.in_use else ''}{_because(one.problem)}")
        for one in runtimes
    ]


def _because(problem: str) -> str:
    return f": {problem}" if problem else ""
