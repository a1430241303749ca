"""What a derived model adds to the one it was made from: pure data, kept in its manifest.

Merged and hashed here; what it means to a request or to an engine is for others.
"""

from __future__ import annotations

import hashlib

import msgspec


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message that comes before every conversation."""

    role: str
    content: str = ""


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA: the SHA-256 of its adapter_config.json and of its weights, in hex."""

    config: str
    weights: str

    @property
    def id(self) -> str:
        """64 hex digits: its folder in the store, and what the engine calls it."""
        return hashlib.sha256(f"{self.config}{self.weights}".encode()).hexdigest()


class Overlay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a derived model says for itself; what is empty is as its base has it."""

    system: str = ""
    template: str = ""  # Jinja
    parameters: dict[str, object] = {}  # Ollama's options
    messages: tuple[Turn, ...] = ()
    licenses: tuple[str, ...] = ()  # beside the base's own
    capabilities: tuple[str, ...] = ()
    adapter: Adapter | None = None


EMPTY_OVERLAY = Overlay()


def merge(base: Overlay, new: Overlay) -> Overlay:
    """What comes of `new` over `base`: licences append, parameters merge, the rest replaces."""
    more = (text for text in new.licenses if text not in base.licenses)
    return Overlay(
        system=new.system or base.system,
        template=new.template or base.template,
        parameters=base.parameters | new.parameters,
        messages=new.messages or base.messages,
        licenses=(*base.licenses, *more),
        capabilities=new.capabilities or base.capabilities,
        adapter=new.adapter or base.adapter,
    )


def derived_digest(digest: str, overlay: Overlay) -> str:
    """The digest of a model with `digest` under `overlay`; a mere copy keeps its base's."""
    if overlay == EMPTY_OVERLAY:
        return digest
    return _sha256([digest, overlay])


def layer_digests(overlay: Overlay) -> list[str]:
    """A digest for each part of `overlay`, as Ollama's progress names its layers."""
    parts = msgspec.structs.asdict(overlay).values()
    return [f"sha256:{_sha256(part)}" for part in parts if part]


def _sha256(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
