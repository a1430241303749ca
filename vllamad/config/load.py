"""The merged `Settings` of files, drop-ins, environment and command line.

It must not know what a value may be; `config/schema.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vllamad.config.listen_address import is_loopback, parse_listen, unguarded
from vllamad.config.paths import default_paths, hub_cache, path_problem, xdg
from vllamad.config.schema import SECTIONS
from vllamad.config.secrets import read_api_keys, read_hub_token
from vllamad.config.settings import ModelSettings, Paths, Remark, Settings
from vllamad.config.sources import (
    FoundValue,
    Source,
    from_command_line,
    from_environment,
    from_file,
)
from vllamad.config.toml_lines import KeyPath
from vllamad.errors import ConfigError

ETC = Path("/etc/vllamad")

Values = dict[KeyPath, FoundValue]


def load_settings(
    cli: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    cwd: Path,
    home: Path,
    euid: int,
    etc: Path = ETC,
    only: Path | None = None,
    listening: bool = False,
) -> Settings:
    """Read every source there is, or of the files `only` one, and merge them.

    `cli` maps dotted keys to texts. `listening` says that systemd has opened the public sockets:
    then `server.listen` has no effect and is not judged. Raises ConfigError with the faults of all
    sources at once.
    """
    files, sources = _read_files(
        [only] if only else _candidates(environ, cwd, home, etc), bool(only)
    )
    sources += [from_environment(environ), from_command_line(cli)]
    values: Values = {}
    for source in sources:  # lowest precedence first: a later one wins
        values.update(source.values)
    paths = replace(
        default_paths(environ, euid, home),
        registry_files=_registry_files(environ, home, etc),
        hub_caches=(hub_cache(environ, home),),
    )
    settings = _build(values, paths, home, files)
    faults = [fault for source in sources for fault in source.faults]
    settings, unread = _with_secrets(settings, values, environ)
    faults += unread
    faults += _contradictions(settings, values, listening=listening)
    if faults:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    remarks = [remark for source in sources for remark in source.remarks]
    if listening and ("server", "listen") in values:
        remarks.append(Remark(values["server", "listen"].where, "systemd holds the sockets"))
    return replace(settings, remarks=tuple(remarks))


def _candidates(environ: Mapping[str, str], cwd: Path, home: Path, etc: Path) -> list[Path]:
    """The paths of configuration files, lowest precedence first."""
    user = xdg(environ, "XDG_CONFIG_HOME") or home / ".config"
    return [
        etc / "config.toml",
        *sorted((etc / "conf.d").glob("*.toml")),
        user / "vllamad" / "config.toml",
        cwd / "vllamad.toml",
    ]


def _registry_files(environ: Mapping[str, str], home: Path, etc: Path) -> tuple[Path, ...]:
    """The operator's files of the model registry, lowest precedence first."""
    user = xdg(environ, "XDG_CONFIG_HOME") or home / ".config"
    more = sorted((etc / "catalog.d").glob("*.toml"))
    return etc / "catalog.toml", *more, user / "vllamad" / "catalog.toml"


def _read_files(
    candidates: Sequence[Path], required: bool
) -> tuple[tuple[Path, ...], list[Source]]:
    read = [(file, from_file(file, required=required)) for file in candidates]
    there = [(file, source) for file, source in read if source is not None]
    return tuple(file for file, _ in there), [source for _, source in there]


def _build(values: Values, paths: Paths, home: Path, files: tuple[Path, ...]) -> Settings:
    settings = Settings(paths=_paths(values, paths, home, files))
    parts = {
        section: replace(getattr(settings, section), **_section(values, (section,)))
        for section in SECTIONS
        if section not in ("paths", "model")
    }
    names = dict.fromkeys(path[1] for path in values if path[0] == "model")
    models = {name: replace(ModelSettings(), **_section(values, ("model", name))) for name in names}
    return replace(settings, **parts, models=models)


def _section(values: Values, prefix: KeyPath) -> dict[str, object]:
    """The values below a table, by field; entries of a table of free names become one dict."""
    found: dict[str, object] = {}
    tables: dict[str, dict[str, object]] = {}
    depth = len(prefix)
    for path, value in values.items():
        if path[:depth] == prefix and len(path) == depth + 1:
            found[path[depth]] = value.value
        elif path[:depth] == prefix:
            tables.setdefault(path[depth], {})[path[depth + 1]] = value.value
    return {**found, **tables}


def _paths(values: Values, paths: Paths, home: Path, files: tuple[Path, ...]) -> Paths:
    given = {
        name: home / str(path)[2:] if str(path).startswith("~/") else path
        for name, path in _section(values, ("paths",)).items()
    }
    merged = replace(paths, **{"models": Path(), **given}, config_files=files)
    if "control" not in given and paths.control.is_relative_to(paths.run):
        merged = replace(merged, control=merged.run / paths.control.name)
    return merged


def _with_secrets(
    settings: Settings, values: Values, environ: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """Add the secrets, which have files of their own, or the reason why one cannot be read."""
    faults: list[str] = []
    try:
        settings = replace(settings, api_keys=read_api_keys(settings.server.api_keys_file, environ))
    except ValueError as fault:
        faults.append(f"{_where(values, 'server', 'api_keys_file')}: {fault}")
    try:
        settings = replace(settings, hub_token=read_hub_token(settings.hub.token_file, environ))
    except ValueError as fault:
        faults.append(f"{_where(values, 'hub', 'token_file')}: {fault}")
    return settings, faults


def _where(values: Values, *path: str) -> str:
    return values[path].where if path in values else f"default: {'.'.join(path)}"


def _contradictions(settings: Settings, values: Values, *, listening: bool) -> list[str]:
    """Faults of combinations of settings."""
    at = partial(_where, values)
    faults: list[str] = []
    for name in ("run", "control"):
        problem = path_problem(name, getattr(settings.paths, name))
        if problem:
            faults.append(f"{at('paths', name)}: {problem}")
    public = [one for one in settings.server.listen if not is_loopback(parse_listen(one)[0])]
    if (
        public
        and not listening
        and not (settings.api_keys or settings.server.allow_unauthenticated)
    ):
        faults.append(f"{at('server', 'listen')}: {unguarded(public[0])}")
    worker = settings.worker
    if worker.backoff_limit < worker.backoff_base:
        faults.append(
            f"{at('worker', 'backoff_limit')}: must be at least worker.backoff_base, "
            f"{worker.backoff_limit:g} s is less than {worker.backoff_base:g} s"
        )
    return faults
