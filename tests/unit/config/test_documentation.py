"""docs/configuration.md says exactly what settings.py does."""

from __future__ import annotations

import re
from dataclasses import MISSING
from pathlib import Path

import pytest
import tomlkit

from tests.support.paths import ROOT
from vllamad.config.changes import Effect, effect_of
from vllamad.config.ollama_variables import CLIENTS, IGNORED, MAPPED, MappedSetting
from vllamad.config.paths import RUN_LIMIT
from vllamad.config.schema import SECTIONS

TEXT = (ROOT / "docs" / "configuration.md").read_text()
HEADING = {"model": '`[model."name"]`'} | {
    name: f"`[{name}]`" for name in SECTIONS if name != "model"
}


def rows(section):
    """The table of a section: key and default, as documented."""
    part = TEXT.split(f"## {HEADING[section]}\n")[1].split("\n## ")[0]
    table = part.split("| key | default | meaning |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    cells = [row.split(" | ") for row in table.splitlines()]
    return {cell[0].strip("| `"): cell[1] for cell in cells}


def documented(setting):
    if setting.default is MISSING or setting.default == Path():
        return "see above"
    if setting.default is None:
        return "that of `[scheduler]`"
    value = {} if setting.entry else setting.kind.spell(setting.default)
    return f"`{tomlkit.item(value).as_string() or '{}'}`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_and_its_default_are_documented(section):
    expected = {name: documented(setting) for name, setting in SECTIONS[section].items()}
    assert rows(section) == expected


def test_every_section_documented_is_one():
    found = re.findall(r"^## `(\[.*\])`$", TEXT, re.MULTILINE)
    assert {f"`{name}`" for name in found} == set(HEADING.values())


@pytest.mark.case("F8")
def test_every_variable_of_ollama_is_documented_with_its_setting_or_why_it_has_none():
    rows = dict(re.findall(r"^\| `(OLLAMA_\w+)` \| (.*?) \|", TEXT, re.MULTILINE))
    assert list(rows) == [*MAPPED, *IGNORED]
    assert {name: rows[name] for name in IGNORED} == IGNORED
    for name, read in MAPPED.items():
        meant = read("/1" if name == "OLLAMA_MODELS" else "f16" if "CACHE" in name else "1")
        setting = f"`{meant.section}.{meant.key}`" if isinstance(meant, MappedSetting) else "none"
        assert rows[name] == setting
    for name in CLIENTS:
        assert f"`{name}`" in TEXT


def test_the_limit_of_the_run_directory_is_the_one_documented():
    assert f"at most {RUN_LIMIT} bytes" in TEXT


def test_the_examples_of_faults_are_real_ones(place):
    place.write("\n[server]\nlistn = 1\n", "etc/config.toml")
    faults = place.faults({"logging.level": "loud"}, {"VLLAMAD_SERVER_GATEWAYS": "0"})
    assert len(faults) == 3
    for fault in faults:
        assert f"    {fault}\n".replace("    etc/", "    /etc/vllamad/") in TEXT


def counting(effect):
    """The settings of which a change counts so, as documented."""
    words = []
    for section, known in SECTIONS.items():
        keys = [key for key in known if effect_of(section, key) is effect]
        others = [key for key in known if key not in keys]
        if len(keys) > len(others):
            but = " but " + ", ".join(f"`{key}`" for key in others) if others else ""
            words.append(HEADING[section] + but)
        else:
            words += [f"`{section}.{key}`" for key in keys]
    return "; ".join(words)


@pytest.mark.parametrize("effect", Effect)
def test_it_is_documented_of_every_setting_when_a_change_counts(effect):
    assert f"| {effect} | {counting(effect)} |\n" in TEXT
