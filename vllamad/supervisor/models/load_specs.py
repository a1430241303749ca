"""An installed model and its settings as the scheduler's spec: facts into needs, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vllamad.config.settings import EngineSettings, Flag
from vllamad.core.audio_support import AudioSupport, missing_packages
from vllamad.core.cpu import FLOAT32, NumberType, choose_number_type
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.launch import Lora, Spec
from vllamad.core.memory import Machine, Need, find_placement, longest_context
from vllamad.models.checkpoint.metadata import ModelFacts
from vllamad.models.checkpoint.vllm_parsers import usable_parsers
from vllamad.models.installed import InstalledModel
from vllamad.models.store.lora import StoredAdapter


def spec_of(
    installed: InstalledModel,
    machine: Machine,
    adapters: Sequence[StoredAdapter] = (),
    engine: EngineFeatures | None = None,
    own: EngineSettings | None = None,
) -> Spec:
    """The spec for loading `installed` on `machine`, with all `adapters` that requests may name.

    `own` holds the configured settings of every engine.
    """
    every = own or EngineSettings()
    facts, settings = installed.facts, installed.settings
    own_length = facts.context_length
    longest = settings.context_length or min(every.context_length or own_length, own_length)
    tools, reasoning = usable_parsers(facts, settings.args, engine)
    need = Need(
        weights=facts.weight_bytes + sum(adapter.size for adapter in adapters),
        cache=facts.cache,
        context_length=longest,
        gpus=settings.tensor_parallel_size,
        utilization=settings.gpu_memory_utilization,
    )
    args = {**every.args, **settings.args}
    numbers = _numbers(need, machine, facts, args)
    if numbers.name == FLOAT32 and not machine.devices:
        need = _widened(need, facts)
    cut = _context_for(need, machine, asked=bool(settings.context_length))
    return Spec(
        model=installed.worker_name,
        folder=str(installed.folder),
        digest=installed.digest,
        need=replace(need, context_length=cut),
        context_length=cut if settings.context_length or cut < own_length else 0,
        keep_alive=settings.keep_alive,
        pooling=facts.is_embedding,
        numbers=numbers,
        audio=_usable_audio(facts.audio, engine),
        tool_parser=tools,
        reasoning_parser=reasoning,
        args=args,
        env={**every.env, **settings.env},
        engine=replace(every, args={}, env={}, context_length=0),
        memory_max=settings.memory_max,
        template=installed.overlay.template,
        loras=tuple(
            Lora(name=adapter.id, folder=str(adapter.folder), rank=adapter.rank)
            for adapter in adapters
        ),
        lora=installed.overlay.adapter.id if installed.overlay.adapter else "",
    )


def _numbers(
    need: Need, machine: Machine, facts: ModelFacts, args: Mapping[str, Flag]
) -> NumberType:
    """The number type to compute in; with GPUs the engine chooses."""
    if asked := args.get("dtype"):
        return NumberType(name=str(asked), why="set in args")
    if machine.devices:
        return NumberType()
    return choose_number_type(
        facts.quantization,
        machine.numbers,
        wide_fits=find_placement(_widened(need, facts), machine, ()) is not None,
        pooling=facts.is_embedding,
    )


def _widened(need: Need, facts: ModelFacts) -> Need:
    """The need in float32: weights that are stored in 16 bits take twice as much."""
    times = 2 if facts.quantization in ("BF16", "F16") else 1
    return replace(need, weights=need.weights * times, kv_element=4)


def _usable_audio(support: AudioSupport, engine: EngineFeatures | None) -> AudioSupport:
    """The audio support of a worker: a model of text works without, where packages are missing."""
    missing = missing_packages(support, engine.audio_packages) if engine else ()
    return AudioSupport.NONE if support is AudioSupport.WITH_TEXT and missing else support


def _context_for(need: Need, machine: Machine, *, asked: bool) -> int:
    """The longest context that the engine admits; a configured length is not cut on GPUs."""
    held = longest_context(need, machine)
    return need.context_length if machine.devices and (asked or not held) else held
