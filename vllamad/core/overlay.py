"""The settings that a derived model adds to its base, as its manifest stores them.

Merges and hashes them; knows neither requests nor engines.
"""

from __future__ import annotations

import hashlib

import msgspec


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message that is put before every conversation."""

    role: str
    content: str = ""


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA: the SHA-256 of its adapter_config.json and of its weights, in hex."""

    config: str
    weights: str

    @property
    def id(self) -> str:
        """64 hex digits: the name of its folder in the store, and of the adapter in the engine."""
        return hashlib.sha256(f"{self.config}{self.weights}".encode()).hexdigest()


class Overlay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings of a derived model; an empty one is inherited from the base."""

    system: str = ""
    template: str = ""  # Jinja
    parameters: dict[str, object] = {}  # Ollama's options
    messages: tuple[Turn, ...] = ()
    licenses: tuple[str, ...] = ()  # in addition to the base's
    capabilities: tuple[str, ...] = ()
    adapter: Adapter | None = None


EMPTY_OVERLAY = Overlay()


def merge(base: Overlay, new: Overlay) -> Overlay:
    """Merge `new` over `base`: licences append, parameters merge, the rest replaces."""
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
    """The digest of a base with `digest` and an overlay; a plain copy has that of its base."""
    if overlay == EMPTY_OVERLAY:
        return digest
    return _sha256([digest, overlay])


def layer_digests(overlay: Overlay) -> list[str]:
    """A digest for each part of `overlay`, as Ollama's progress names layers."""
    parts = msgspec.structs.asdict(overlay).values()
    return [f"sha256:{_sha256(part)}" for part in parts if part]


def _sha256(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
