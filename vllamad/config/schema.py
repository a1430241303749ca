"""The settings, each with the kind of its values.

The dataclasses of `config/settings.py` are the list; a setting that is more than its type says has
a line in `SPECIAL` here. It must not know where values come from.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import get_origin, get_type_hints

from vllamad.config import values
from vllamad.config.settings import ModelSettings, Settings
from vllamad.config.values import Kind

_KEEP_ALIVE = values.duration_kind(forever=True, negative=True)
_WAIT = values.duration_kind(zero=False, forever=True)
_INTERVAL = values.duration_kind(zero=False)
_FILE = values.text_kind(r"(/[^\x00]*)?", "the absolute path of a file")
MODEL_NAME = values.model_name_kind()

# Kinds that are narrower than the type. All other settings: see `_BY_TYPE`.
SPECIAL: dict[str, Kind] = {
    "server.listen": values.list_kind(
        values.address_kind(), 'a list of addresses such as "127.0.0.1:11434"', least=1
    ),
    "server.gateways": values.whole_kind(1, 64),
    "server.allowed_origins": values.list_kind(
        values.origin_kind(), 'a list of origins such as "https://example.com"'
    ),
    "server.api_keys_file": _FILE,
    "server.ollama_version": values.text_kind(r"\d+\.\d+\.\d+", 'a version such as "0.33.0"'),
    "server.max_body": values.size_kind(1 << 10),
    "control.group": values.text_kind(r"([a-z_][a-z0-9_-]{0,31})?", "the name of a group"),
    "scheduler.keep_alive": _KEEP_ALIVE,
    "scheduler.max_queue": values.whole_kind(1),
    "scheduler.max_running": values.whole_kind(1),
    "scheduler.queue_timeout": _WAIT,
    "scheduler.load_timeout": _WAIT,
    "scheduler.memory": values.size_kind(),
    "scheduler.gpu_overhead": values.size_kind(),
    "scheduler.preload": values.list_kind(MODEL_NAME, "a list of models' names"),
    "worker.kill_timeout": _INTERVAL,
    "worker.probe_interval": _INTERVAL,
    "worker.probe_timeout": _INTERVAL,
    "worker.probe_misses": values.whole_kind(1),
    "worker.stuck_timeout": _WAIT,
    "worker.backoff_base": _INTERVAL,
    "worker.backoff_limit": _INTERVAL,
    "worker.max_failures": values.whole_kind(1),
    "worker.memory_max": values.size_kind(),
    "engine.runtime": values.text_kind(
        r"([A-Za-z0-9][A-Za-z0-9._+-]{0,63})?", "the name of a runtime"
    ),
    "engine.python": values.text_kind(r"(/[^\x00]*)?", "the absolute path of a Python"),
    "engine.cpu_kv_cache": values.size_kind(1 << 20),
    "model.path": values.text_kind(r"(/[^\x00]*)?", "the absolute path of a folder"),
    "model.keep_alive": _KEEP_ALIVE,
    "model.tensor_parallel_size": values.whole_kind(1, 1024),
    "model.gpu_memory_utilization": values.share_kind(),
    "model.memory_max": values.size_kind(),
    "hub.endpoint": values.text_kind(
        r"(https?://[^\s/?#]+(/[^\s?#]*)?)?", "an http or https address"
    ),
    "hub.token_file": _FILE,
    "hub.caches": values.list_kind(
        values.text_kind(r"/[^\x00]*", "the absolute path of a folder"), "a list of folders"
    ),
    "logging.level": values.choice_kind("debug", "info", "warning", "error"),
    "logging.format": values.choice_kind("text", "json"),
    "logging.max_bytes": values.size_kind(1 << 16),
    "logging.keep": values.whole_kind(0, 100),
}

# The pattern of entry names in a table of free names (flags, environment).
_ENTRY_NAMES = {
    "args": values.text_kind(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a flag's name without its dashes"),
    "env": values.text_kind(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable"),
}

_BY_TYPE: dict[object, Kind] = {
    str: values.text_kind(),
    bool: values.boolean_kind(),
    int: values.whole_kind(),
    float: values.duration_kind(),
    Path: values.path_kind(),
    tuple[str, ...]: values.list_kind(values.text_kind()),
    dict[str, str]: values.text_kind(),
    dict[str, str | bool | int | float]: values.scalar_kind(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of value, and for a table of free names, the pattern of its entries."""

    kind: Kind
    entry: Kind | None
    default: object


def _settings_of(section: str, owner: type) -> dict[str, Setting]:
    hints = get_type_hints(owner)
    found: dict[str, Setting] = {}
    for field in fields(owner):  # pyright: ignore[reportArgumentType]  # every owner is a dataclass
        kind = SPECIAL.get(f"{section}.{field.name}") or _BY_TYPE.get(hints[field.name])
        if kind is None:
            continue  # Paths.config_files is ours to fill
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        entry = _ENTRY_NAMES[field.name] if get_origin(hints[field.name]) is dict else None
        found[field.name] = Setting(kind=kind, entry=entry, default=made)
    return found


def _sections() -> dict[str, dict[str, Setting]]:
    hints: Mapping[str, type] = get_type_hints(Settings)
    found = {
        name: _settings_of(name, hint)
        for name, hint in hints.items()
        if isinstance(hint, type) and is_dataclass(hint)
    }
    return {**found, "model": _settings_of("model", ModelSettings)}


SECTIONS = _sections()
"""Every setting by section and name. `model` is one per model: [model."name"]."""


def environment_name(section: str, name: str) -> str:
    """VLLAMAD_<SECTION>_<KEY>."""
    return f"VLLAMAD_{section}_{name}".upper()


ENVIRONMENT: dict[str, tuple[str, str]] = {
    environment_name(section, name): (section, name)
    for section, settings in SECTIONS.items()
    for name, setting in settings.items()
    if section != "model" and setting.entry is None
}
"""The settings a single variable can carry; tables cannot be."""


def suggest(name: str, known: Mapping[str, object]) -> str:
    """`, did you mean "listen"?`, a key's true section, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f', did you mean "{close[0]}"?'
    homes = [section for section, settings in SECTIONS.items() if name in settings]
    return f", it belongs in [{homes[0]}]" if homes and known is not ENVIRONMENT else ""
