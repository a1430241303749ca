"""Context lengths that engines named when they refused the planned one.

Stored in the cache folder, so that later loads, of later daemons too, begin with them. The key has
the model, the engine, the size of the cache and the settings: another of these is another entry.
"""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import cast

from vllamad.core.launch import Plan
from vllamad.host.log import event

log = logging.getLogger(__name__)

FILE = "context_lengths.json"
MAX_ENTRIES = 500  # the newest stay


def remembered(plan: Plan, engine: str, cache: Path) -> Plan:
    """The plan with the length the engine admits; `engine` names its version.

    A plan with a length that the engine has just named is stored.
    """
    key = _key(plan, engine)
    known = _read(cache / FILE)
    if not plan.admitted:
        return plan.shortened(known[key]) if key in known else plan
    known.pop(key, None)
    _write(cache / FILE, dict([*known.items(), (key, plan.admitted)][-MAX_ENTRIES:]))
    return plan


def _key(plan: Plan, engine: str) -> str:
    spec, need = plan.spec, plan.spec.need
    # Hashed, since settings may be secrets: flags and variables change what an engine admits.
    options = json.dumps([spec.args, spec.env], sort_keys=True)
    parts = (
        spec.digest or spec.folder,
        engine,
        need.gpus,
        need.kv_element,
        plan.placement.kv_cache,
        sha256(options.encode()).hexdigest()[:12],
    )
    return " ".join(map(str, parts))


def _read(path: Path) -> dict[str, int]:
    """The stored lengths; empty if the file is missing or invalid."""
    try:
        content = cast("object", json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
    known = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    return {key: value for key, value in known.items() if type(value) is int and value > 0}


def _write(path: Path, known: dict[str, int]) -> None:
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(known, indent=1))
        beside.replace(path)
    except OSError as error:
        event(
            log, logging.WARNING, "cannot store a context length", path=path, error=error.strerror
        )
