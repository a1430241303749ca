"""Finds the repository for a pull: the registry is read anew, for the machine as it is now."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from vllamad.config.settings import Settings
from vllamad.core.memory import Machine
from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.models.registry.registry_file import load_registry
from vllamad.models.registry.resolve import Origin, resolve_origin
from vllamad.supervisor.engine_runtimes import EngineRuntimes

log = logging.getLogger(__name__)


async def origin_for(name: ModelName, settings: Settings, engines: EngineRuntimes) -> Origin:
    """Find the repository for `name`; for a known model, that of the variant for this machine.

    Raises ModelNotFound, BadInput, and ConfigError for a fault in an operator's registry file.
    """
    machine = await engines.hardware()
    own = [
        one for text, one in settings.models.items() if parse_model_name(text).key() == name.key()
    ]
    context = own[0].context_length if own else 0
    origin = await trio.to_thread.run_sync(
        _look_up, name, settings.paths.registry_files, machine, context
    )
    if origin.variant:
        event(
            log,
            logging.INFO,
            "variant chosen",
            LogEvent.VARIANT_CHOSEN,
            model=name.display(),
            variant=origin.variant,
            repository=origin.repository,
            not_taken="; ".join(origin.passed_over) or None,
        )
    return origin


def _look_up(
    name: ModelName, registry_files: tuple[Path, ...], machine: Machine, context: int
) -> Origin:
    return resolve_origin(name, load_registry(registry_files), machine, context)
