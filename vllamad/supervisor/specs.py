"""An installed model and its settings as the scheduler's spec: facts into needs, no I/O."""

from __future__ import annotations

from vllamad.core.launch import Spec
from vllamad.core.memory import Machine, Need
from vllamad.models.catalog import Installed
from vllamad.models.parsers import parsers_for

_BLOCK = 128  # tokens: contexts are cut to whole cache blocks


def spec_of(installed: Installed, machine: Machine) -> Spec:
    """What loading `installed` on `machine` would take."""
    facts, settings = installed.facts, installed.settings
    own = settings.context_length or facts.context_length
    tools, reasoning = parsers_for(facts)
    cut = _context_for(own, facts.kv_bytes_per_token, machine)
    return Spec(
        model=installed.name,
        folder=str(installed.folder),
        digest=installed.digest,
        need=Need(
            weights=facts.weight_bytes,
            kv_per_token=facts.kv_bytes_per_token,
            context_length=cut,
            gpus=settings.tensor_parallel_size,
            utilization=settings.gpu_memory_utilization,
        ),
        context_length=cut if settings.context_length or cut < own else 0,
        keep_alive=settings.keep_alive,
        pooling=facts.is_embedding,
        tool_parser=tools,
        reasoning_parser=reasoning,
        args=dict(settings.args),
        env=dict(settings.env),
    )


def _context_for(own: int, kv_per_token: int, machine: Machine) -> int:
    """The longest context the cache of a CPU worker can hold once; a GPU's is planned for it."""
    if machine.devices or not kv_per_token:
        return own
    return min(own, machine.cpu_kv_cache // kv_per_token // _BLOCK * _BLOCK)
