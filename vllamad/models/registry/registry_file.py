"""Reads the registry of known models: `registry.toml` beside this file, then the operator's files.

The head of `registry.toml` describes the format.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast

import msgspec

from vllamad.core.kv_cache import Layers
from vllamad.core.model_name import parse_model_name
from vllamad.core.variants import FORMATS, KnownModel, Variant
from vllamad.errors import BadInput, ConfigError, HostProblem
from vllamad.models.registry.registry import ModelRegistry
from vllamad.models.registry.resolve import MAIN
from vllamad.models.store.safe_files import read_bounded

SHIPPED = Path(__file__).with_name("registry.toml")
SIZE_LIMIT = 4 << 20  # bytes of one file

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)

Table = dict[str, object]
T = TypeVar("T")


class _Repository(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: str
    revision: str = MAIN
    gated: bool | None = None  # None: as its family
    size: float = 0


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of config.json from which the KV cache of one token is computed."""

    layers: int
    kv_heads: int = 0
    head_dim: int = 0
    latent: int = 0
    embeddings: float = 0

    @property
    def cache(self) -> tuple[Layers, ...]:
        if self.latent:
            return (Layers(count=self.layers, width=self.latent),)
        return (Layers(count=self.layers, heads=self.kv_heads, width=2 * self.head_dim),)


class _Tag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One size of a family; a field left out has the family's value."""

    parameters: float
    context: int
    shape: _Shape = _Shape(layers=0)
    also: tuple[str, ...] = ()
    license: str = ""
    gated: bool | None = None
    bf16: str | _Repository = ""
    fp8: str | _Repository = ""
    mxfp4: str | _Repository = ""
    awq: str | _Repository = ""
    gptq: str | _Repository = ""
    int4: str | _Repository = ""


class _Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: str
    license: str
    latest: str
    tags: dict[str, object]
    kind: Literal["text", "vision", "embedding"] = "text"
    gated: bool = False


def load_registry(files: Iterable[Path] = ()) -> ModelRegistry:
    """Load the registry: ours, overridden by `files`, of which the last has precedence.

    A missing file is skipped. Raises ConfigError that names the file and the fault.
    """
    tables: Table = {}
    registry = ModelRegistry()
    for file in (SHIPPED, *files):
        try:
            _override(tables, tomllib.loads(read_bounded(file, SIZE_LIMIT).decode()))
            registry = _registry_of(tables)
        except HostProblem as error:
            if file.exists():
                raise ConfigError((f"{file}: {error.message}",)) from error
        except (ValueError, BadInput, RecursionError) as error:
            text = str(error)
            raise ConfigError((f"{file}: {text[:1].lower()}{text[1:]}",)) from error
    return registry


def _override(below: Table, above: Table) -> None:
    """Merge `above` into `below`: families key by key, tags as a whole."""
    for name, table in above.items():
        old = below.setdefault(name, {})
        if not isinstance(table, dict) or not isinstance(old, dict):
            raise ValueError(f"{name} must be a table")
        family, new = cast("Table", old), cast("Table", table)
        tags = family.get("tags", {})
        family.update(new)
        if isinstance(tags, dict) and isinstance(new.get("tags"), dict):
            family["tags"] = {**cast("Table", tags), **cast("Table", new["tags"])}


def _registry_of(tables: Table) -> ModelRegistry:
    families = {
        name: _decoded(name, table, _Family) for name, table in tables.items() if name != "unserved"
    }
    return ModelRegistry(
        tuple(_models(families)),
        {name: family.latest for name, family in families.items()},
        _decoded("unserved", tables.get("unserved", {}), dict[str, str]),
    )


def _decoded(where: str, table: object, kind: type[T]) -> T:
    """Decode a table. Raises ValueError that names it and the field."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        message = str(error).replace("`$.", "`").removesuffix(" - at `$`")
        raise ValueError(f"{where}: {message[:1].lower()}{message[1:]}") from error


def _models(families: Mapping[str, _Family]) -> Iterator[KnownModel]:
    for name, family in families.items():
        for tag, table in family.tags.items():
            yield _model(name, family, tag, _decoded(f"{name}:{tag}", table, _Tag))


def _model(family_name: str, family: _Family, tag: str, size: _Tag) -> KnownModel:
    name = _display_name(family_name, tag)
    gated = family.gated if size.gated is None else size.gated
    sources = [(form, cast("str | _Repository", getattr(size, form))) for form in FORMATS]
    variants = tuple(_variant(name, form, source, gated) for form, source in sources if source)
    if not variants:
        raise ValueError(f"{name} has no repository")
    return KnownModel(
        name=name,
        also=tuple(_display_name(family_name, other) for other in size.also),
        about=family.about,
        kind=family.kind,
        license=size.license or family.license,
        parameters=int(size.parameters),
        embeddings=int(size.shape.embeddings),
        cache=size.shape.cache,
        context=size.context,
        variants=variants,
    )


def _variant(name: str, form: str, source: str | _Repository, gated: bool) -> Variant:
    repository = _Repository(source) if isinstance(source, str) else source
    if not _REPOSITORY.fullmatch(repository.repository):
        raise ValueError(f"{name}: {form}: {repository.repository!r} is not org/repo")
    return Variant(
        format=form,
        repository=repository.repository,
        revision=repository.revision,
        gated=gated if repository.gated is None else repository.gated,
        size=int(repository.size),
    )


def _display_name(family: str, tag: str) -> str:
    name = f"{family}:{tag}"
    try:
        return parse_model_name(name).display()
    except BadInput as error:
        raise ValueError(f"{name} is not a model name") from error
