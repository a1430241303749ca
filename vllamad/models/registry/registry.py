"""The registry of models that can be pulled by the names known from ollama.com.

Resolves a name to a known model and suggests similar names. `registry_file.py` reads the files;
installed models are in `models/installed.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vllamad.core.model_name import (
    DEFAULT_HOST,
    DEFAULT_NAMESPACE,
    DEFAULT_TAG,
    ModelName,
    parse_model_name,
)
from vllamad.core.variants import FORMATS, KnownModel

_SUFFIXES = {f"-{name}": name for name in FORMATS} | {"-fp16": "bf16"}
_GGUF = re.compile(r"[-_.]gguf$", re.IGNORECASE)


class ModelRegistry:
    """The known models, by all their names."""

    def __init__(
        self,
        models: Sequence[KnownModel] = (),
        latest: Mapping[str, str] | None = None,
        unserved: Mapping[str, str] | None = None,
    ) -> None:
        """`latest` is a tag for each family, `unserved` the reason for each name not offered.

        Raises ValueError for a duplicate name, and for a latest tag that does not exist.
        """
        self.models = tuple(models)
        self._latest = {family.lower(): tag.lower() for family, tag in (latest or {}).items()}
        self.unserved = {name.lower(): why for name, why in (unserved or {}).items()}
        self._by_name: dict[str, KnownModel] = {}
        for model in self.models:
            for name in (model.name, *model.also):
                if self._by_name.setdefault(parse_model_name(name).key(), model) is not model:
                    raise ValueError(f"the name {name} occurs twice")
        for family, tag in self._latest.items():
            if self._tagged(family, tag) is None:
                raise ValueError(f"{family}: latest is {tag}, which is not one of its tags")

    def find(self, name: ModelName) -> KnownModel | None:
        """The model that `name` means; a suffix such as `-fp8` selects one of its variants."""
        if _is_foreign(name):
            return None
        tag = name.tag.lower()
        if tag == DEFAULT_TAG:
            tag = self._latest.get(name.model.lower(), tag)
        model = self._tagged(name.model, tag)
        suffix = next((suffix for suffix in _SUFFIXES if tag.endswith(suffix)), "")
        if model is not None or not suffix:
            return model
        base = self._tagged(name.model, tag.removesuffix(suffix))
        variants = base.variants if base else ()
        selected = tuple(variant for variant in variants if variant.format == _SUFFIXES[suffix])
        return replace(base, variants=selected) if base and selected else None

    def _tagged(self, family: str, tag: str) -> KnownModel | None:
        return self._by_name.get(ModelName(model=family, tag=tag).key())

    def hint(self, name: ModelName) -> str:
        """The hint for an unknown name: the reason, its family's tags, or similar names."""
        family = name.model.lower()
        if _is_foreign(name):
            return f"a repository of the hub is written org/repo, not {name.display()}"
        if why := self.unserved.get(family):
            return f"{family} cannot be served: {why}"
        members = [model for model in self.models if _family(model) == family]
        if tags := [parse_model_name(model.name).tag for model in members]:
            return f"{family} has the tags {', '.join(tags)}"
        near = difflib.get_close_matches(family, self._latest, n=3, cutoff=0.6)
        near += [
            known for known in self._latest if known.startswith(family[:5]) and known not in near
        ]
        similar = f"did you mean {', '.join(near[:3])}? " if near else ""
        return f"{similar}`vllamactl search` lists known names; a repository is written org/repo"

    def search(self, text: str) -> list[KnownModel]:
        """The models whose names, description or repositories contain every word of `text`."""
        words = text.lower().split()
        return [
            model for model in self.models if all(word in _searchable_text(model) for word in words)
        ]

    def original_of(self, repository: str) -> KnownModel | None:
        """The model that a repository of GGUF files was converted from, judged by its name."""
        name = _GGUF.sub("", repository.rpartition("/")[2])
        # Some owners put that of the original before its name: `Qwen_Qwen3-8B-GGUF`.
        names = {_bare(name), _bare(name.partition("_")[2])}
        for model in self.models:
            if any(_bare(variant.repository) in names for variant in model.variants):
                return model
        return None


def is_gguf(repository: str) -> bool:
    """Whether a repository's name says that its weights are GGUF files."""
    return bool(_GGUF.search(repository))


def _is_foreign(name: ModelName) -> bool:
    """Whether the name is outside ollama.com's own library."""
    return name.host.lower() != DEFAULT_HOST or name.namespace.lower() != DEFAULT_NAMESPACE


def _family(model: KnownModel) -> str:
    return parse_model_name(model.name).model.lower()


def _searchable_text(model: KnownModel) -> str:
    repositories = [variant.repository for variant in model.variants]
    return " ".join((model.name, *model.also, model.about, model.kind, *repositories)).lower()


def _bare(repository: str) -> str:
    """A repository's name without owner, case and signs, which its copies have in common."""
    name = re.sub(r"[^a-z0-9]", "", repository.rpartition("/")[2].lower())
    return name.removeprefix("meta")
