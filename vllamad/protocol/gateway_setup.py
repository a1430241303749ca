"""The setup of a gateway by the supervisor, over two pipes and by signals.

A gateway reads its settings once from standard input, and no file of ours. It writes SERVING to the
descriptor that the variable TOLD_ON names, and closes it when it accepts no more connections;
standard output is left to libraries.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from vllamad.config.settings import ApiKey, LogSettings, ModelSettings, ServerSettings, Settings
from vllamad.core.engine_features import EngineFeatures

SERVING: Final = b"serving\n"
TOLD_ON: Final = "VLLAMAD_GATEWAY_PIPE"
RETIRE: Final = signal.SIGUSR1  # accept no new connections, and exit after the last response


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """All a gateway knows; `sockets` are the inherited listening sockets' numbers."""

    broker: Path
    control: Path
    models_dir: Path
    sockets: tuple[int, ...]
    loopback: bool  # whether every socket is bound to a loopback address: the Host check depends
    server: ServerSettings
    logging: LogSettings
    models: dict[str, ModelSettings]
    api_keys: tuple[ApiKey, ...] = ()
    caches: tuple[str, ...] = ()  # of other tools
    features: EngineFeatures | None = None  # None while no engine is installed


def for_gateway(
    settings: Settings,
    sockets: tuple[int, ...],
    *,
    loopback: bool,
    features: EngineFeatures | None = None,
) -> GatewaySettings:
    """The part of `settings` that a gateway needs."""
    return GatewaySettings(
        broker=settings.paths.broker,
        control=settings.paths.control,
        models_dir=settings.paths.models,
        sockets=sockets,
        loopback=loopback,
        server=settings.server,
        logging=settings.logging,
        # How long a model stays is the scheduler's business, and JSON has no word for ever. An
        # environment may hold secrets, and a gateway reads what strangers send.
        models={
            name: replace(model, keep_alive=None, env={}) for name, model in settings.models.items()
        },
        api_keys=settings.api_keys,
        caches=settings.caches,
        features=features,
    )


def encode(settings: GatewaySettings) -> bytes:
    return msgspec.json.encode(settings, enc_hook=str)


def decode(data: bytes) -> GatewaySettings:
    """Read what `encode` wrote. Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=GatewaySettings, dec_hook=_path)


def _path(kind: type, value: object) -> object:
    assert kind is Path
    return Path(str(value))
