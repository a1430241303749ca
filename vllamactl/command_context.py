"""The context of every command: its output, its client of the daemon, its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vllamactl.control_client import ControlClient
from vllamactl.render import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    screen: Screen
    client: ControlClient
    environ: Mapping[str, str]
