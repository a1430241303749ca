"""Which variant of a known model suits a machine: what each needs, and why it is taken or not.

Sizes are bytes. Knows formats of weights and numbers of a model, not where either comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vllamad.core.kv_cache import Layers, per_token
from vllamad.core.memory import Machine, Need, find_placement, largest_room, least_memory

CONTEXT_WANTED = 32768  # tokens: a longer one is for who asks for it

Capability = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How weights are stored: bits of one, and the oldest GPU the engine runs it on."""

    bits: float
    capability: Capability
    on_cpu: bool = False


# The better the answers, the earlier. Capabilities: `get_min_capability` of vLLM 0.32. On a GPU
# older than 8.0 it computes bf16 weights in float16, on one older than 8.9 fp8 ones in 16 bits.
# A group of 128 four-bit weights has a scale, and with awq and gptq a zero point.
FORMATS = {
    "bf16": Format(bits=16, capability=(7, 5), on_cpu=True),
    "fp8": Format(bits=8, capability=(7, 5)),
    "mxfp4": Format(bits=4.25, capability=(8, 0)),
    "awq": Format(bits=4.16, capability=(7, 5)),
    "gptq": Format(bits=4.16, capability=(7, 5)),
    "int4": Format(bits=4.13, capability=(7, 5)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One repository with the weights of a model, in one of FORMATS."""

    format: str
    repository: str
    revision: str
    gated: bool = False
    size: int = 0  # of its weights, where the number of parameters does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model by the name people type, and the numbers its memory is reckoned with."""

    name: str  # as shown, with its tag
    also: tuple[str, ...] = ()  # other names for the same
    about: str
    kind: str  # text, vision or embedding
    license: str
    parameters: int
    embeddings: int = 0  # parameters that stay in 16 bits whatever the format
    cache: tuple[Layers, ...] = ()
    context: int
    variants: tuple[Variant, ...]  # the better answers first

    @property
    def kv_per_token(self) -> int:
        """Bytes of cache one token takes, in 16 bits."""
        return per_token(self.cache, 2)

    @property
    def gated(self) -> bool:
        """Does any of it need the consent of its maker?"""
        return any(variant.gated for variant in self.variants)

    def weights(self, variant: Variant) -> int:
        """Bytes of the weights of `variant`."""
        bits = FORMATS[variant.format].bits
        inner = max(0, self.parameters - self.embeddings)
        return variant.size or int(inner * bits / 8 + min(self.embeddings, self.parameters) * 2)

    def memory(self, variant: Variant, context: int) -> int:
        """Bytes of the weights, and of the cache of one context of that many tokens."""
        return self.weights(variant) + self.kv_per_token * context


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantChoice:
    """What to take, over how many GPUs, and one line for each variant that came before it."""

    variant: Variant
    gpus: int  # 0: on the CPU
    context: int  # what it was reckoned with
    fits: bool
    passed_over: tuple[str, ...] = ()


def choose_variant(model: KnownModel, machine: Machine, context: int = 0) -> VariantChoice:
    """Choose the best variant that fits with `context` tokens; 0 is what people use.

    As few GPUs as possible come before better answers: a model is spread only where an operator
    says so. Where nothing fits, the smallest that the machine could run is taken.
    """
    wanted = context or min(model.context, CONTEXT_WANTED)
    runnable = [variant for variant in model.variants if not _obstacle(variant, machine)]
    passed = [_obstacle(variant, machine) for variant in model.variants if variant not in runnable]
    empty = replace(machine, devices=tuple(replace(one, foreign=0) for one in machine.devices))
    gpus = min(1, len(machine.devices))
    for gpus in _counts(machine):
        for variant in runnable:
            need = _need(model, variant, wanted, gpus)
            if find_placement(need, empty, ()) is not None:
                return _choice(variant, gpus, wanted, passed)
            passed.append(_too_large(variant, need, empty))
    smallest = min(runnable or model.variants, key=model.weights)
    return replace(_choice(smallest, gpus, wanted, passed), fits=False)


def _choice(variant: Variant, gpus: int, context: int, passed: Sequence[str]) -> VariantChoice:
    return VariantChoice(
        variant=variant, gpus=gpus, context=context, fits=True, passed_over=(*passed,)
    )


def _obstacle(variant: Variant, machine: Machine) -> str:
    """Why the machine could not run `variant`, however much memory it had; empty: it could."""
    form = FORMATS[variant.format]
    if not machine.devices:
        return "" if form.on_cpu else f"{variant.format}: does not run on a CPU"
    # A card whose capability is not known is taken to run everything.
    known = [device.capability for device in machine.devices if device.capability != (0, 0)]
    if min(known, default=form.capability) >= form.capability:
        return ""
    needed, had = (".".join(map(str, one)) for one in (form.capability, min(known)))
    return f"{variant.format}: needs compute capability {needed}, the GPU has {had}"


def _counts(machine: Machine) -> Iterator[int]:
    """Over how many GPUs it may be spread: powers of two, as heads are; 0 on a CPU."""
    count = min(1, len(machine.devices))
    while count <= len(machine.devices):
        yield count
        if not count:
            return
        count *= 2


def _need(model: KnownModel, variant: Variant, context: int, gpus: int) -> Need:
    return Need(
        weights=model.weights(variant),
        cache=model.cache,
        context_length=context,
        gpus=max(1, gpus),
    )


def _too_large(variant: Variant, need: Need, machine: Machine) -> str:
    each = f" on each of {need.gpus} GPUs" if need.gpus > 1 else ""
    return (
        f"{variant.format}: needs {least_memory(need, machine) >> 20} MiB{each},"
        f" there is room for {largest_room(machine) >> 20} MiB"
    )
