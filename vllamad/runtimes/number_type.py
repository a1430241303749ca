"""Which number type is fast with a runtime on this kind of CPU: measured once, then remembered.

An install measures and keeps it with the runtime's facts. For a runtime that lacks it, or whose
disk or virtual machine has moved to another kind of CPU, it is measured at the first need and kept
in the cache. What follows from it is `core/cpu.py`.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import msgspec

from vllamad.core.cpu import NumberTimes
from vllamad.errors import RuntimeProblem
from vllamad.host import devices
from vllamad.runtimes.installed_runtimes import write_json_file
from vllamad.runtimes.package_installer import Report
from vllamad.runtimes.runtime_facts import Measured, RuntimeFacts, run_probe

_LIMIT = 120.0  # seconds; it takes about ten, of which nearly all are imports


def remembered_times(facts: RuntimeFacts, cache: Path) -> NumberTimes | None:
    """What was measured with this runtime on this kind of CPU; None: nothing was."""
    cpu = devices.cpu_key()
    for one in facts.numbers:
        if one.cpu == cpu:
            return one.times
    try:
        kept = msgspec.json.decode(_file(facts, cpu, cache).read_bytes(), type=Measured)
    except (OSError, msgspec.MsgspecError):
        return None  # not measured yet, or by another version of ours
    return kept.times if kept.cpu == cpu else None


def measure_number_types(facts: RuntimeFacts) -> Measured:
    """Measure now: about ten seconds. Raises RuntimeProblem."""
    told = run_probe(facts.python, "measure", str(devices.cores()), timeout=_LIMIT)
    try:
        return Measured(cpu=devices.cpu_key(), times=msgspec.convert(told, NumberTimes))
    except msgspec.ValidationError as error:
        raise RuntimeProblem(f"cannot understand what {facts.python} measured: {error}") from error


def measure_and_remember(facts: RuntimeFacts, cache: Path) -> NumberTimes:
    """Measure, and keep it in the cache where that can be written. Raises RuntimeProblem."""
    found = measure_number_types(facts)
    try:
        write_json_file(_file(facts, found.cpu, cache), found)
    except OSError:
        pass  # it is measured again after the next start
    return found.times


def with_number_times(facts: RuntimeFacts, progress: Report) -> RuntimeFacts:
    """The facts with what is measured on this CPU; as they are for GPUs, or where it fails."""
    if facts.device != "cpu":
        return facts
    progress("measuring which number type is fast here")
    try:
        return msgspec.structs.replace(facts, numbers=(measure_number_types(facts),))
    except RuntimeProblem as problem:
        progress(f"going without: {problem.message}")
        return facts


def _file(facts: RuntimeFacts, cpu: str, cache: Path) -> Path:
    key = os.fsencode("\0".join((facts.python, facts.version, cpu)))
    return cache / "runtimes" / f"numbers-{sha256(key).hexdigest()[:16]}.json"
