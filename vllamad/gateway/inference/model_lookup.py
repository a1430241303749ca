"""The model a request names: among those installed, or refused in the words of its route."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from vllamad.core.model_name import parse_model_name, split_source
from vllamad.errors import BadInput, ModelNotFound, NotAllowed
from vllamad.gateway.context import Context
from vllamad.models.checkpoint.vllm_parsers import can_switch_thinking
from vllamad.models.installed import InstalledModel
from vllamad.protocol.lease import Granted
from vllamad.translate.ollama.options import from_generation_config
from vllamad.translate.ollama.request import Message
from vllamad.translate.ollama.to_engine import ModelTraits

CLOUD_DISABLED = "ollama cloud is disabled: remote model is unavailable"


async def find(
    context: Context,
    text: str,
    *,
    missing: BadInput | ModelNotFound,
    unknown: Callable[[str], str] = lambda name: f"model '{name}' not found",
    cloud: str = CLOUD_DISABLED,
) -> InstalledModel:
    """The installed model that `text` names.

    Raises `missing` for an empty name, BadInput for what is no name, NotAllowed for a model in
    Ollama's cloud, and ModelNotFound with the words `unknown` makes of the name as it was sent.
    """
    name = named(text, missing=missing, cloud=cloud)
    found = context.installed_models.cached(name) or await trio.to_thread.run_sync(
        context.installed_models.find, name
    )
    if found is None:
        raise ModelNotFound(unknown(name if split_source(text)[1] else text))
    return found


def named(text: str, *, missing: BadInput | ModelNotFound, cloud: str = CLOUD_DISABLED) -> str:
    """The name in `text`, without the mark of its source; raises as `find` does before it looks."""
    name, source = split_source(text)
    if not name:
        raise missing
    parse_model_name(name)
    if source == "cloud":
        raise NotAllowed(cloud)
    return name


async def traits_for(context: Context, installed: InstalledModel) -> ModelTraits:
    """`traits_of`, with the rules of the model's chat template."""
    rules = await context.templates.rules_of(installed)
    return msgspec.structs.replace(traits_of(installed), rules=rules)


def traits_of(installed: InstalledModel) -> ModelTraits:
    """What the translation of a request must know of its model."""
    return ModelTraits(
        full_name=installed.canonical,
        capabilities=frozenset(installed.capabilities),
        always_thinks=not can_switch_thinking(installed.facts),
        system=installed.overlay.system,
        stored=from_generation_config(installed.facts.generation) | installed.overlay.parameters,
        history=[
            Message(role=turn.role, content=turn.content) for turn in installed.overlay.messages
        ],
        fim=installed.facts.fim if "insert" in installed.capabilities else None,
        writes_bos="bos_token" in installed.facts.chat_template,
    )


def without_missing_parsers(traits: ModelTraits, grant: Granted) -> ModelTraits:
    """`traits` without what this worker turned out not to do: its engine refused a parser."""
    lost = {name for name, has in (("tools", grant.tools), ("thinking", grant.thinking)) if not has}
    if traits.capabilities.isdisjoint(lost):
        return traits
    return msgspec.structs.replace(traits, capabilities=traits.capabilities - lost)
