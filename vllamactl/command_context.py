"""What every command is handed: where to ask, and where to answer."""

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
    """The control API's path of a model; a `/` in the name is not one in the path."""
    path = f"/v1/models/{quote(model, safe='')}"
    return f"{path}/{action}" if action else path
