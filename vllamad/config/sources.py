"""The settings in each source: files, the environment, the command line.

Every value is checked where it is found, so that a fault can name its place; which of them wins is
not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from vllamad.config.ollama_variables import CLIENTS, IGNORED, MAPPED
from vllamad.config.orchestrators import is_generated
from vllamad.config.paths import VARIABLES
from vllamad.config.schema import ENVIRONMENT, MODEL_NAME, SECTIONS, Setting, suggest
from vllamad.config.settings import Remark
from vllamad.config.toml_lines import KeyPath, first_lines, first_repeated, split_key

FILE_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundValue:
    """A checked value and the text that names its place, which goes before a problem."""

    value: object
    where: str


@dataclass(slots=True, kw_only=True)
class Source:
    """The settings of one source, and all its faults."""

    values: dict[KeyPath, FoundValue] = field(default_factory=dict[KeyPath, FoundValue])
    faults: list[str] = field(default_factory=list[str])
    remarks: list[Remark] = field(default_factory=list[Remark])


@dataclass(frozen=True, slots=True)
class PlainText:
    """A value that came as plain text, not as TOML."""

    text: str


NamePlace = Callable[[KeyPath], str]


def from_file(file: Path, *, required: bool = False) -> Source | None:
    """Read a TOML file; None if there is none. An unreadable file is a fault, not an error."""
    try:
        text = _read(file)
    except FileNotFoundError:
        return Source(faults=[f"{file}: cannot read: no such file"]) if required else None
    except OSError as error:
        return Source(faults=[f"{file}: cannot read: {(error.strerror or str(error)).lower()}"])
    except ValueError as error:
        return Source(faults=[f"{file}:{error}"])
    try:
        tree = tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError, RecursionError) as error:
        return Source(faults=[f"{file}:{_parse_problem(text, error)}"])
    lines = first_lines(text)

    def place(path: KeyPath) -> str:
        return f"{file}:{lines.get(path, 1)}: {spell_key(path)}"

    return _walk(tree, place)


def from_environment(environ: Mapping[str, str]) -> Source:
    """Read OLLAMA_* and, above them, VLLAMAD_<SECTION>_<KEY>. An empty one counts as not set."""
    source = Source()
    for variable in sorted(name for name in environ if name.startswith("OLLAMA_")):
        text = environ[variable].strip().strip("\"'")
        if text:
            _ollamas(source, variable, text)
    prefixes = tuple(f"VLLAMAD_{section.upper()}_" for section in SECTIONS)
    for variable, text in environ.items():
        if variable in ENVIRONMENT and text:
            section, key = ENVIRONMENT[variable]
            tree = {section: {key: PlainText(text)}}
            _add(source, _walk(tree, lambda _, v=variable: f"environment: {v}"))
        elif not variable.startswith("VLLAMAD_") or variable in (*ENVIRONMENT, *VARIABLES):
            continue
        elif is_generated(variable, text):
            source.remarks.append(_generated(variable))
        elif variable.startswith(prefixes):
            hint = suggest(variable, ENVIRONMENT)
            source.faults.append(f"environment: {variable}: unknown variable{hint}")
        else:
            source.remarks.append(Remark(variable, _unknown(variable, ENVIRONMENT)))
    return source


def _ollamas(source: Source, variable: str, text: str) -> None:
    """Read one variable of an Ollama server, or remark that it has no effect."""
    where = f"environment: {variable}"
    if variable in MAPPED:
        try:
            meant = MAPPED[variable](text)
        except ValueError as error:
            source.faults.append(f"{where}: {error}")
            return
        if isinstance(meant, str):
            source.remarks.append(Remark(variable, meant))
        elif meant is not None:
            value = PlainText(meant.text) if meant.text else meant.value
            _add(source, _walk({meant.section: {meant.key: value}}, lambda _: where))
    elif is_generated(variable, text):
        source.remarks.append(_generated(variable))
    elif variable not in CLIENTS:
        why = IGNORED.get(variable) or _unknown(variable, {**MAPPED, **IGNORED})
        source.remarks.append(Remark(variable, why))


def _generated(variable: str) -> Remark:
    return Remark(variable, "an orchestrator's, for a service of that name", expected=True)


def _unknown(variable: str, known: Mapping[str, object]) -> str:
    return f"unknown variable{suggest(variable, known)}"


def from_command_line(options: Mapping[str, str]) -> Source:
    """Read dotted keys and their texts, as in `--server.listen 127.0.0.1:8080`."""
    source = Source()
    for name, text in options.items():
        try:
            path = split_key(name)
        except ValueError:
            source.faults.append(f"command line: --{name}: not a dotted key")
            continue
        tree: object = PlainText(text)
        for part in reversed(path):
            tree = {part: tree}
        _add(
            source, _walk(cast("dict[str, object]", tree), lambda _, n=name: f"command line: --{n}")
        )
    return source


def spell_key(path: KeyPath) -> str:
    """A dotted key in TOML's form."""
    return tomlkit.key(list(path)).as_string() if path else ""


def _walk(tree: Mapping[str, object], place: NamePlace) -> Source:
    source = Source()
    for section, table in tree.items():
        settings = SECTIONS.get(section)
        if settings is None:
            hint = suggest(section, SECTIONS)
            source.faults.append(f"{place((section,))}: unknown section or key{hint}")
        elif section == "model":
            for name, entries in _table(source, place, (section,), table).items():
                _model(source, place, name, entries)
        else:
            _keys(source, place, (section,), table, settings)
    return source


def _model(source: Source, place: NamePlace, name: str, table: object) -> None:
    """Two spellings of one model are one model; places and faults keep what was written."""
    path = ("model", name)
    try:
        canonical = str(MODEL_NAME.check(name))
    except ValueError as error:
        source.faults.append(f"{place(path)}: {error}")
        return
    found = Source()
    _keys(found, place, path, table, SECTIONS["model"])
    source.faults.extend(found.faults)
    for written, value in found.values.items():
        source.values["model", canonical, *written[2:]] = value


def _keys(
    source: Source, place: NamePlace, path: KeyPath, table: object, settings: Mapping[str, Setting]
) -> None:
    for key, value in _table(source, place, path, table).items():
        setting = settings.get(key)
        if setting is None:
            source.faults.append(f"{place((*path, key))}: unknown key{suggest(key, settings)}")
        elif setting.entry is None:
            _value(source, place, (*path, key), value, setting)
        else:
            for name, entry in _table(source, place, (*path, key), value).items():
                _value(source, place, (*path, key, name), entry, setting)


def _value(
    source: Source, place: NamePlace, path: KeyPath, value: object, setting: Setting
) -> None:
    where = place(path)
    try:
        if setting.entry is not None:
            setting.entry.check(path[-1])
        raw = setting.kind.from_text(value.text) if isinstance(value, PlainText) else value
        source.values[path] = FoundValue(value=setting.kind.check(raw), where=where)
    except ValueError as error:
        source.faults.append(f"{where}: {error}")


def _table(source: Source, place: NamePlace, path: KeyPath, value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    source.faults.append(f"{place(path)}: must be a table")
    return {}


def _add(source: Source, more: Source) -> None:
    source.values.update(more.values)
    source.faults.extend(more.faults)


def _read(file: Path) -> str:
    """The text of a file. Raises OSError, and ValueError for one that is too big or not UTF-8."""
    too_big = ValueError(f" cannot read: larger than {FILE_LIMIT >> 20} MiB")
    with file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > FILE_LIMIT:
            raise too_big
        content = stream.read(FILE_LIMIT + 1)  # a pipe or a device tells no size
    if len(content) > FILE_LIMIT:
        raise too_big
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{line}: not UTF-8: byte 0x{content[error.start]:02x}") from error


def _parse_problem(text: str, error: Exception) -> str:
    """`LINE: problem`, always on one line."""
    line = getattr(error, "line", None) or first_repeated(text) or 1
    what = " ".join(str(error).split(" at line ")[0].split()) or type(error).__name__
    return f"{line}: not valid TOML: {what[:1].lower()}{what[1:200]}"
