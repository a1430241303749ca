"""Which settings differ between two configurations, and what it takes for the new ones to count.

Pure: `supervisor/reload.py` does what is decided here.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from vllamad.config.schema import SECTIONS
from vllamad.config.settings import ModelSettings, Settings


class Effect(StrEnum):
    """What it takes until a setting that was changed counts; the words are those of the docs."""

    NOW = "at once"
    LOAD = "at the next load"  # workers that run go on as they are
    REPLACE = "in a new worker"  # those that run with another value are replaced when idle
    RESTART = "after a restart"


_SECTIONS = {
    "paths": Effect.RESTART,
    "server": Effect.NOW,
    "control": Effect.RESTART,
    "scheduler": Effect.NOW,
    "worker": Effect.LOAD,
    "engine": Effect.REPLACE,
    "model": Effect.REPLACE,
    "hub": Effect.NOW,
    "logging": Effect.NOW,
}
# What is not like the rest of its section.
_KEYS = {
    "server.listen": Effect.RESTART,
    "scheduler.load_timeout": Effect.LOAD,
    "worker.failed_cooldown": Effect.NOW,
    "worker.keep_workers": Effect.RESTART,
    "model.keep_alive": Effect.NOW,
    "logging.max_bytes": Effect.LOAD,
    "logging.keep": Effect.LOAD,
}


def effect_of(section: str, key: str) -> Effect:
    """What a change of that setting takes."""
    return _KEYS.get(f"{section}.{key}", _SECTIONS[section])


def changed_settings(old: Settings, new: Settings) -> dict[str, Effect]:
    """Every setting that differs, by its dotted key, in the order of the documentation."""
    found: dict[str, Effect] = {}
    for section, known in SECTIONS.items():
        if section == "model":
            continue
        for key in known:
            if getattr(getattr(old, section), key) != getattr(getattr(new, section), key):
                found[f"{section}.{key}"] = effect_of(section, key)
    # The files are named in the settings, but it is what they hold that counts.
    if old.api_keys != new.api_keys:
        found["server.api_keys_file"] = effect_of("server", "api_keys_file")
    if old.hub_token != new.hub_token:
        found["hub.token_file"] = effect_of("hub", "token_file")
    return found | _model_changes(old, new)


def in_force(old: Settings, new: Settings) -> Settings:
    """What counts from now on: `new`, but for what takes a restart."""
    parts: dict[str, object] = {}
    for section, known in SECTIONS.items():
        kept = [key for key in known if effect_of(section, key) is Effect.RESTART]
        if kept and section != "model":
            before = getattr(old, section)
            values = {key: getattr(before, key) for key in kept}
            parts[section] = replace(getattr(new, section), **values)
    return replace(new, **parts)


def _model_changes(old: Settings, new: Settings) -> dict[str, Effect]:
    found: dict[str, Effect] = {}
    for name in dict.fromkeys((*old.models, *new.models)):
        before = old.models.get(name, ModelSettings())
        after = new.models.get(name, ModelSettings())
        for key in SECTIONS["model"]:
            if getattr(before, key) != getattr(after, key):
                found[f'model."{name}".{key}'] = effect_of("model", key)
    return found
