"""The context of every command: its output, its client of the daemon, its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from vllamactl.control_client import ControlClient
from vllamactl.render import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    screen: Screen
    client: ControlClient
    environ: Mapping[str, str]


def model_path(model: str, action: str = "") -> str:
    """Return the control API's path of a model, with every `/` of the name quoted."""
    path = f"/v1/models/{quote(model, safe='')}"
    return f"{path}/{action}" if action else path
