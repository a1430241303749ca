"""Measures once how fast each number type is with a runtime on this kind of CPU.

An install keeps the times with the runtime's facts. For a runtime without them, or on another kind
of CPU, they are measured when first needed and kept in the cache. `core/cpu.py` chooses the type.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import msgspec

from vllamad.core.cpu import NumberTimes
from vllamad.errors import RuntimeProblem
from vllamad.host.machine import devices
from vllamad.runtimes.installed_runtimes import write_json_file
from vllamad.runtimes.package_installer import Report
from vllamad.runtimes.runtime_facts import Measured, RuntimeFacts, run_probe

_LIMIT = 120.0  # seconds; it takes about ten, of which nearly all are imports


def remembered_times(facts: RuntimeFacts, cache: Path) -> NumberTimes | None:
    """The times measured with this runtime on this kind of CPU; None: not measured yet."""
    cpu = devices.cpu_key()
    for measured in facts.numbers:
        if measured.cpu == cpu:
            return measured.times
    try:
        kept = msgspec.json.decode(_file(facts, cpu, cache).read_bytes(), type=Measured)
    except (OSError, msgspec.MsgspecError):
        return None  # not measured yet, or by another version of vllamad
    return kept.times if kept.cpu == cpu else None


def measure_number_types(facts: RuntimeFacts) -> Measured:
    """Measure now: about ten seconds. Raises RuntimeProblem."""
    result = run_probe(facts.python, "measure", str(devices.cores()), timeout=_LIMIT)
    try:
        return Measured(cpu=devices.cpu_key(), times=msgspec.convert(result, NumberTimes))
    except msgspec.ValidationError as error:
        raise RuntimeProblem(
            f"cannot read the times that {facts.python} measured: {error}"
        ) from error


def measure_and_remember(facts: RuntimeFacts, cache: Path) -> NumberTimes:
    """Measure, and keep the times in the cache if it is writable. Raises RuntimeProblem."""
    measured = measure_number_types(facts)
    try:
        write_json_file(_file(facts, measured.cpu, cache), measured)
    except OSError:
        pass  # it is measured again after the next start
    return measured.times


def with_number_times(facts: RuntimeFacts, progress: Report) -> RuntimeFacts:
    """The facts with the times on this CPU; unchanged for a GPU, or where measuring fails."""
    if facts.device != "cpu":
        return facts
    progress("measuring which number type is fast here")
    try:
        return msgspec.structs.replace(facts, numbers=(measure_number_types(facts),))
    except RuntimeProblem as problem:
        progress(f"continuing without: {problem.message}")
        return facts


def _file(facts: RuntimeFacts, cpu: str, cache: Path) -> Path:
    key = os.fsencode("\0".join((facts.python, facts.version, cpu)))
    return cache / "runtimes" / f"numbers-{sha256(key).hexdigest()[:16]}.json"
