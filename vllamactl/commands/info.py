"""The command `info`: CPU, memory, GPUs, runtimes, versions and paths; needs no daemon."""

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
    daemon: str | None  # None: not reachable
    python: str
    kernel: str
    driver: str  # NVIDIA's; empty if there is none


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of this machine; `gpu_problem` is the reason why its GPU cannot be used."""

    cpu: Cpu
    memory: MachineMemory
    gpus: list[Gpu]
    gpu_problem: str
    runtimes: list[control.RuntimeInfo]
    versions: Versions
    paths: dict[str, object]


class _Config(msgspec.Struct, frozen=True):
    paths: dict[str, object] = {}


def info(context: CommandContext) -> None:
    """Show this machine, and the daemon's version and paths if it is reachable."""
    facts = _inspect(context)
    context.screen.answer(facts, _text(facts), [gpu.name for gpu in facts.gpus])


def _inspect(context: CommandContext) -> Info:
    # Imported here: slow, and no other command needs them.
    from importlib.metadata import version

    from vllamad.host.machine import devices, gpu_detection, gpu_info
    from vllamad.runtimes.installed_runtimes import list_runtimes

    described = gpu_info.describe()
    problem = gpu_detection.look(context.environ.get("CUDA_VISIBLE_DEVICES")).missing
    daemon, paths = _daemon(context)
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


def _daemon(context: CommandContext) -> tuple[str | None, dict[str, object]]:
    """Return the daemon's version and paths; without it, the paths of one started here."""
    try:
        version = context.client.get("/v1/version", control.Version).version
        return version, context.client.get("/v1/config", _Config).paths
    except (NotReachable, NotAllowed):
        pass
    try:
        paths = read_settings(context.environ).paths
    except ConfigError as error:
        context.screen.note(error.message)
        home = Path(context.environ.get("HOME", "/"))
        paths = default_paths(context.environ, os.geteuid(), home)
    names = ("state", "cache", "logs", "run", "control")
    return None, {name: str(getattr(paths, name)) for name in names}


def _memory(proc: Path) -> MachineMemory:
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) << 10 for words in lines}
    return MachineMemory(total=sizes["MemTotal"], available=sizes.get("MemAvailable", 0))


def _text(facts: Info) -> str:
    memory = facts.memory
    machine = [
        ("cpu", f"{facts.cpu.model}, {facts.cpu.cores} cores"),
        ("memory", f"{human.size(memory.total)}, {human.size(memory.available)} available"),
    ]
    versions = facts.versions
    return blocks(
        {
            "Machine": machine,
            "GPUs": list(_gpu_rows(facts)),
            "Runtimes": _runtime_rows(facts.runtimes),
            "Versions": [
                ("vllamactl", versions.client),
                ("vllamad", versions.daemon or "not reachable"),
                ("python", versions.python),
                ("kernel", versions.kernel),
                *([("driver", versions.driver)] if versions.driver else []),
            ],
            "Paths": [(name, str(path)) for name, path in facts.paths.items() if path],
        }
    )


def _gpu_rows(facts: Info) -> Iterator[tuple[str, ...]]:
    for gpu in facts.gpus:
        size = f"{human.size(gpu.memory_total)}, {human.size(gpu.memory_free)} free"
        yield str(gpu.index), f"{gpu.name}, {size}, compute capability {gpu.compute_capability}"
    if facts.gpu_problem:
        yield ("none" if not facts.gpus else "problem", facts.gpu_problem)


def _runtime_rows(runtimes: Sequence[control.RuntimeInfo]) -> list[tuple[str, ...]]:
    if not runtimes:
        return [("none", "install one with `vllamactl runtime install`")]
    return [
        (
            runtime.name,
            f"{runtime.device}{', in use' if runtime.in_use else ''}{_because(runtime.problem)}",
        )
        for runtime in runtimes
    ]


def _because(problem: str) -> str:
    return f": {problem}" if problem else ""
