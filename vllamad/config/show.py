"""The effective configuration, as TOML for people and as JSON for scripts, without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import cast

import tomlkit
from tomlkit.items import Table

from vllamad.config.schema import SECTIONS, Setting
from vllamad.config.settings import Settings

Json = str | bool | int | float | list[str] | dict[str, "Json"]

_SECRET = re.compile(r"token|key|secret|password|credential", re.IGNORECASE)
_HIDDEN = "(hidden)"


def settings_as_toml(settings: Settings) -> str:
    """The effective configuration as a TOML file that could be read again, but for secrets."""
    document = tomlkit.document()
    document.add(tomlkit.comment("Read from, lowest precedence first:"))
    for file in settings.paths.config_files or ("no file",):
        document.add(tomlkit.comment(f"  {file}"))
    for section, known in SECTIONS.items():
        if section != "model":
            document.add(section, _table(known, getattr(settings, section)))
    if settings.models:
        models = tomlkit.table(is_super_table=True)
        for name, model in settings.models.items():
            models.add(name, _table(SECTIONS["model"], model))
        document.add("model", models)
    return tomlkit.dumps(document)


def settings_as_json(settings: Settings) -> dict[str, Json]:
    """The same for scripts: seconds and bytes as numbers, a duration that never ends as -1."""
    shown: dict[str, Json] = {
        section: _plain(known, getattr(settings, section))
        for section, known in SECTIONS.items()
        if section != "model"
    }
    shown["model"] = {
        name: _plain(SECTIONS["model"], model) for name, model in settings.models.items()
    }
    shown["config_files"] = [str(file) for file in settings.paths.config_files]
    return shown


def _table(known: Mapping[str, Setting], owner: object) -> Table:
    table = tomlkit.table()
    for name, value in _values(known, owner):
        setting = known[name]
        if setting.entry is None:
            table.add(name, setting.kind.spell(value))
        elif value:
            inner = tomlkit.inline_table()
            for key, entry in cast("dict[str, object]", value).items():
                inner.add(key, setting.kind.spell(entry))
            table.add(name, inner)
    return table


def _plain(known: Mapping[str, Setting], owner: object) -> dict[str, Json]:
    return {name: _json(value) for name, value in _values(known, owner)}


def _values(known: Mapping[str, Setting], owner: object) -> Iterator[tuple[str, object]]:
    """Every setting that has a value, secrets replaced."""
    for name, setting in known.items():
        value: object = getattr(owner, name)
        if setting.entry is not None:
            entries = cast("dict[str, object]", value)
            value = {key: _HIDDEN if _SECRET.search(key) else one for key, one in entries.items()}
        if value is not None:
            yield name, value


def _json(value: object) -> Json:
    match value:
        case dict():
            return {key: _json(entry) for key, entry in cast("dict[str, object]", value).items()}
        case tuple():
            return [str(entry) for entry in cast("tuple[object, ...]", value)]
        case float() if math.isinf(value):
            return -1
        case bool() | int() | float():
            return value
        case _:
            return str(value)
