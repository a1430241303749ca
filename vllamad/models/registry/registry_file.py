"""Reads the catalogue of known models: `registry.toml` beside this file, and the operator's own.

The form of the files is told at the head of ours.
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
    gated: bool | None = None  # None: as the rest of its family
    size: float = 0


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the cache of one token is reckoned from, as config.json has it."""

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
    """One size of a family; all it leaves out is as the family has it."""

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
    """The known models: ours, with what `files` say on top, the last one first heard.

    A file that is not there is none. Raises ConfigError that names the file and the fault.
    """
    tables: Table = {}
    known = ModelRegistry()
    for file in (SHIPPED, *files):
        try:
            _lay_over(tables, tomllib.loads(read_bounded(file, SIZE_LIMIT).decode()))
            known = _known(tables)
        except HostProblem as error:
            if file.exists():
                raise ConfigError((f"{file}: {error.message}",)) from error
        except (ValueError, BadInput, RecursionError) as error:
            text = str(error)
            raise ConfigError((f"{file}: {text[:1].lower()}{text[1:]}",)) from error
    return known


def _lay_over(below: Table, above: Table) -> None:
    """Tags are replaced whole, families key by key."""
    for name, table in above.items():
        old = below.setdefault(name, {})
        if not isinstance(table, dict) or not isinstance(old, dict):
            raise ValueError(f"{name} must be a table")
        family, new = cast("Table", old), cast("Table", table)
        tags = family.get("tags", {})
        family.update(new)
        if isinstance(tags, dict) and isinstance(new.get("tags"), dict):
            family["tags"] = {**cast("Table", tags), **cast("Table", new["tags"])}


def _known(tables: Table) -> ModelRegistry:
    families = {
        name: _told(name, table, _Family) for name, table in tables.items() if name != "unserved"
    }
    return ModelRegistry(
        tuple(_models(families)),
        {name: family.latest for name, family in families.items()},
        _told("unserved", tables.get("unserved", {}), dict[str, str]),
    )


def _told(where: str, table: object, kind: type[T]) -> T:
    """What a table says. Raises ValueError that names it and the field."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        told = str(error).replace("`$.", "`").removesuffix(" - at `$`")
        raise ValueError(f"{where}: {told[:1].lower()}{told[1:]}") from error


def _models(families: Mapping[str, _Family]) -> Iterator[KnownModel]:
    for name, family in families.items():
        for tag, table in family.tags.items():
            yield _model(name, family, tag, _told(f"{name}:{tag}", table, _Tag))


def _model(name: str, family: _Family, tag: str, one: _Tag) -> KnownModel:
    shown = _shown(name, tag)
    gated = family.gated if one.gated is None else one.gated
    given = [(form, cast("str | _Repository", getattr(one, form))) for form in FORMATS]
    variants = tuple(_variant(shown, form, which, gated) for form, which in given if which)
    if not variants:
        raise ValueError(f"{shown} has no repository")
    return KnownModel(
        name=shown,
        also=tuple(_shown(name, other) for other in one.also),
        about=family.about,
        kind=family.kind,
        license=one.license or family.license,
        parameters=int(one.parameters),
        embeddings=int(one.shape.embeddings),
        cache=one.shape.cache,
        context=one.context,
        variants=variants,
    )


def _variant(name: str, form: str, given: str | _Repository, gated: bool) -> Variant:
    which = _Repository(given) if isinstance(given, str) else given
    if not _REPOSITORY.fullmatch(which.repository):
        raise ValueError(f"{name}: {form}: {which.repository!r} is no org/repository")
    return Variant(
        format=form,
        repository=which.repository,
        revision=which.revision,
        gated=gated if which.gated is None else which.gated,
        size=int(which.size),
    )


def _shown(family: str, tag: str) -> str:
    name = f"{family}:{tag}"
    try:
        return parse_model_name(name).display()
    except BadInput as error:
        raise ValueError(f"{name} is no name of a model") from error
