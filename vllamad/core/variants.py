"""The choice of the variant of a known model that suits a machine, with the reasons.

Sizes are bytes. Knows weight formats and the numbers of a model, but no registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vllamad.core.kv_cache import Layers, per_token
from vllamad.core.memory import Machine, Need, find_placement, largest_room, least_memory

CONTEXT_WANTED = 32768  # tokens; a request or the configuration may ask for more

Capability = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A weight format: bits of a weight, and the oldest GPU that the engine runs it on."""

    bits: float
    capability: Capability
    on_cpu: bool = False


# Ordered by quality, best first. Capabilities: `get_min_capability` of vLLM 0.32. On a GPU
# older than 8.0 it computes bf16 weights in float16, on one older than 8.9 fp8 weights in 16
# bits. A group of 128 four-bit weights has a scale, and with awq and gptq a zero point.
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
    size: int = 0  # bytes of its weights; 0: computed from the parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model of the registry by its name, with the numbers that its memory is computed from."""

    name: str  # as shown, with its tag
    also: tuple[str, ...] = ()  # aliases
    about: str
    kind: str  # text, vision or embedding
    license: str
    parameters: int
    embeddings: int = 0  # parameters that stay in 16 bits in any format
    cache: tuple[Layers, ...] = ()
    context: int
    variants: tuple[Variant, ...]  # best quality first

    @property
    def kv_per_token(self) -> int:
        """Bytes of cache of one token in 16 bits."""
        return per_token(self.cache, 2)

    @property
    def gated(self) -> bool:
        """True if any variant requires the consent of its publisher."""
        return any(variant.gated for variant in self.variants)

    def weights(self, variant: Variant) -> int:
        """Bytes of the weights of `variant`."""
        bits = FORMATS[variant.format].bits
        inner = max(0, self.parameters - self.embeddings)
        return variant.size or int(inner * bits / 8 + min(self.embeddings, self.parameters) * 2)

    def memory(self, variant: Variant, context: int) -> int:
        """Bytes of the weights and of the cache of one context of `context` tokens."""
        return self.weights(variant) + self.kv_per_token * context


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantChoice:
    """The chosen variant, its number of GPUs, and a reason for each variant passed over."""

    variant: Variant
    gpus: int  # 0: on the CPU
    context: int  # the length that the choice is based on
    fits: bool
    passed_over: tuple[str, ...] = ()


def choose_variant(model: KnownModel, machine: Machine, context: int = 0) -> VariantChoice:
    """Choose the best variant that fits with `context` tokens; 0 means the usual length.

    Fewer GPUs take precedence over quality: a model is spread only where an operator says so. If
    no variant fits, the smallest one that the machine can run is chosen.
    """
    tokens = context or min(model.context, CONTEXT_WANTED)
    runnable = [variant for variant in model.variants if not _obstacle(variant, machine)]
    passed = [_obstacle(variant, machine) for variant in model.variants if variant not in runnable]
    empty = replace(
        machine, devices=tuple(replace(device, foreign=0) for device in machine.devices)
    )
    gpus = min(1, len(machine.devices))
    for gpus in _counts(machine):
        for variant in runnable:
            need = _need(model, variant, tokens, gpus)
            if find_placement(need, empty, ()) is not None:
                return _choice(variant, gpus, tokens, passed)
            passed.append(_too_large(variant, need, empty))
    smallest = min(runnable or model.variants, key=model.weights)
    return replace(_choice(smallest, gpus, tokens, passed), fits=False)


def _choice(variant: Variant, gpus: int, context: int, passed: Sequence[str]) -> VariantChoice:
    return VariantChoice(
        variant=variant, gpus=gpus, context=context, fits=True, passed_over=(*passed,)
    )


def _obstacle(variant: Variant, machine: Machine) -> str:
    """The reason the machine cannot run `variant` with any memory; empty if it can."""
    form = FORMATS[variant.format]
    if not machine.devices:
        return "" if form.on_cpu else f"{variant.format}: does not run on a CPU"
    # A GPU of unknown capability is assumed to run every format.
    known = [device.capability for device in machine.devices if device.capability != (0, 0)]
    if min(known, default=form.capability) >= form.capability:
        return ""
    needed, had = (".".join(map(str, capability)) for capability in (form.capability, min(known)))
    return f"{variant.format}: needs compute capability {needed}, the GPU has {had}"


def _counts(machine: Machine) -> Iterator[int]:
    """The numbers of GPUs that are tried: powers of two, as heads are split; 0 on a CPU."""
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
