"""The command `config`: the configuration as the daemon would read it; needs no daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vllamactl.command_context import CommandContext
from vllamactl.render import BULLET, DONE
from vllamad.config.paths import home_of
from vllamad.config.settings import Settings


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Merge every source of this user and folder. Raises ConfigError with all faults."""
    from vllamad.config.load import load_settings  # reads TOML: slow, and few commands need it

    euid = os.geteuid()
    return load_settings({}, environ, cwd=Path.cwd(), home=home_of(environ, euid), euid=euid)


def show(context: CommandContext) -> None:
    """Print the effective configuration as TOML, or as JSON."""
    from vllamad.config.show import settings_as_json, settings_as_toml

    settings = read_settings(context.environ)
    text = settings_as_toml(settings).rstrip()
    context.screen.answer(
        settings_as_json(settings) if context.screen.json else None, text, text.splitlines()
    )


def check(context: CommandContext) -> None:
    """Check the configuration. Raises ConfigError with every fault."""
    from vllamad.models.registry.registry_file import load_registry

    settings = read_settings(context.environ)
    paths = settings.paths
    load_registry(paths.registry_files)
    files = [str(file) for file in paths.config_files]
    lines = [f"{context.screen.mark(DONE)} the configuration is valid"]
    lines += [
        f"  {context.screen.mark(BULLET)} {file}" for file in files or ["no file, all defaults"]
    ]
    remarks = list(map(str, settings.remarks))
    lines += [f"  {context.screen.mark(BULLET)} {remark}" for remark in remarks]
    result = {"valid": True, "files": files, "remarks": remarks}
    context.screen.answer(result, "\n".join(lines))
