"""Lists the engine runtimes of this machine, and chooses the one in use.

A runtime is a folder with a virtual environment and the file `runtime.json`, which is written
last. Knows nothing of installing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from vllamad.errors import RuntimeProblem
from vllamad.protocol.control import RuntimeInfo
from vllamad.runtimes.runtime_facts import RuntimeFacts, probe_runtime

FACTS_FILE = "runtime.json"
CURRENT = "current"


def list_runtimes(folder: Path) -> list[RuntimeInfo]:
    """Every runtime in `folder`, broken ones with their problem; unfinished ones are left out."""
    current = current_name(folder)
    return [_info(folder, name, in_use=name == current) for name in _names(folder)]


def use_runtime(folder: Path, name: str) -> RuntimeFacts:
    """Make `name` the runtime of workers started from now on. Raises RuntimeProblem."""
    facts = read_runtime(folder, name)
    fresh = folder / f".{CURRENT}-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(folder / CURRENT)
    return facts


def resolve_runtime(folder: Path, name: str = "", python: str = "", *, cache: Path) -> RuntimeFacts:
    """The facts of `python` if given, else of the runtime `name`, else of the one in use.

    A Python is probed once (about 10 s), and again only when its packages have changed; its facts
    are kept under `cache`. Raises RuntimeProblem.
    """
    if python:
        return _facts_of(Path(python).expanduser().absolute(), cache / "runtimes")
    name = name or current_name(folder)
    if not name:
        raise RuntimeProblem(
            "cannot start an engine: no runtime is installed",
            hint="install one: vllamactl runtime install",
        )
    return read_runtime(folder, name)


def current_name(folder: Path) -> str:
    """The name of the runtime in use; empty if there is none."""
    try:
        return os.readlink(folder / CURRENT)
    except OSError:
        return ""


def read_runtime(folder: Path, name: str) -> RuntimeFacts:
    """The facts of an installed runtime whose Python exists. Raises RuntimeProblem."""
    hint = f"choose one of: {', '.join(_names(folder)) or 'none is installed'}"
    if name not in _names(folder):
        raise RuntimeProblem(f"cannot find the runtime {name!r}", hint=hint)
    try:
        facts = msgspec.json.decode((folder / name / FACTS_FILE).read_bytes(), type=RuntimeFacts)
    except (OSError, msgspec.MsgspecError) as error:
        raise RuntimeProblem(f"cannot read the runtime {name}: {error}", hint=hint) from error
    if not os.access(facts.python, os.X_OK):
        raise RuntimeProblem(
            f"cannot use the runtime {name}: its Python {facts.python} is missing",
            hint=f"repair it with `vllamactl runtime install --repair`, or {hint}",
        )
    return facts


def write_json_file(path: Path, value: msgspec.Struct) -> None:
    """Write `value` as a JSON file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    fresh.replace(path)


def _names(folder: Path) -> list[str]:
    found = (file.parent for file in folder.glob(f"*/{FACTS_FILE}"))
    return sorted(path.name for path in found if not path.is_symlink())


def _info(folder: Path, name: str, *, in_use: bool) -> RuntimeInfo:
    try:
        facts = read_runtime(folder, name)
    except RuntimeProblem as problem:
        return RuntimeInfo(
            name=name, python="", engine="", version="", device="", in_use=in_use,
            problem=problem.message,
        )  # fmt: skip
    return RuntimeInfo(
        name=name,
        python=facts.python,
        engine=facts.engine,
        version=facts.version,
        device=facts.device,
        in_use=in_use,
    )


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of an operator's Python, and the stamp of its packages."""

    stamp: int
    facts: RuntimeFacts


def _facts_of(python: Path, cache: Path) -> RuntimeFacts:
    # Links are kept: a virtual environment is known by the path of its link to the Python.
    kept = cache / f"{sha256(os.fsencode(python)).hexdigest()[:16]}.json"
    stamp = _stamp(python)
    try:
        remembered = msgspec.json.decode(kept.read_bytes(), type=_Remembered)
        if remembered.stamp == stamp:
            return remembered.facts
    except (OSError, msgspec.MsgspecError):
        pass  # not probed yet, or by another version of vllamad
    facts = probe_runtime(str(python), name=str(python))
    write_json_file(kept, _Remembered(stamp=stamp, facts=facts))
    return facts


def _stamp(python: Path) -> int:
    """When packages were last added to or removed from the environment of `python`, in ns."""
    return max(path.stat().st_mtime_ns for path in _witnesses(python))


def _witnesses(python: Path) -> Iterator[Path]:
    if not os.access(python, os.X_OK):
        raise RuntimeProblem(
            f"cannot run {python}", hint="set engine.python to the path of a Python that has vLLM"
        )
    yield python
    prefix = python.parent.parent
    yield from prefix.glob("lib*/python3*/site-packages")
    yield from prefix.glob("lib*/python3*/dist-packages")
