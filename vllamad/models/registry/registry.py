"""The models people name as on ollama.com: which one a name stands for, and what comes near it.

Installed models are in `models/installed.py`; the file of these is read by `registry_file.py`.
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
    """The known models, by every name each has."""

    def __init__(
        self,
        models: Sequence[KnownModel] = (),
        latest: Mapping[str, str] | None = None,
        unserved: Mapping[str, str] | None = None,
    ) -> None:
        """`latest` is a tag for each family, `unserved` the reason for each name not offered.

        Raises ValueError for a name that is there twice, and for a tag that is not.
        """
        self.models = tuple(models)
        self._latest = {family.lower(): tag.lower() for family, tag in (latest or {}).items()}
        self.unserved = {name.lower(): why for name, why in (unserved or {}).items()}
        self._by_name: dict[str, KnownModel] = {}
        for model in self.models:
            for name in (model.name, *model.also):
                if self._by_name.setdefault(parse_model_name(name).key(), model) is not model:
                    raise ValueError(f"{name} is there twice")
        for family, tag in self._latest.items():
            if self._tagged(family, tag) is None:
                raise ValueError(f"{family}: its latest, {tag}, is none of its tags")

    def find(self, name: ModelName) -> KnownModel | None:
        """The model that `name` stands for; `-fp8` and the like at its end leave it one variant."""
        if _is_foreign(name):
            return None
        tag = name.tag.lower()
        if tag == DEFAULT_TAG:
            tag = self._latest.get(name.model.lower(), tag)
        found = self._tagged(name.model, tag)
        suffix = next((one for one in _SUFFIXES if tag.endswith(one)), "")
        if found is not None or not suffix:
            return found
        base = self._tagged(name.model, tag.removesuffix(suffix))
        kept = [one for one in base.variants if one.format == _SUFFIXES[suffix]] if base else []
        return replace(base, variants=tuple(kept)) if base and kept else None

    def _tagged(self, family: str, tag: str) -> KnownModel | None:
        return self._by_name.get(ModelName(model=family, tag=tag).key())

    def hint(self, name: ModelName) -> str:
        """What to tell whoever asks for a name that is not known: why, or what comes near it."""
        family = name.model.lower()
        if _is_foreign(name):
            return f"a repository of the hub is called org/repo: {name.display()} is none"
        if why := self.unserved.get(family):
            return f"{family} cannot be served: {why}"
        tags = [parse_model_name(one.name).tag for one in self.models if _family(one) == family]
        if tags:
            return f"{family} comes as {', '.join(tags)}"
        near = difflib.get_close_matches(family, self._latest, n=3, cutoff=0.6)
        near += [one for one in self._latest if one.startswith(family[:5]) and one not in near]
        meant = f"did you mean {', '.join(near[:3])}? " if near else ""
        return f"{meant}`vllamactl search` lists known names; a repository is called org/repo"

    def search(self, text: str) -> list[KnownModel]:
        """The models in whose names, description or repositories every word of `text` is."""
        words = text.lower().split()
        return [one for one in self.models if all(word in _haystack(one) for word in words)]

    def made_from(self, repository: str) -> KnownModel | None:
        """The model whose weights a repository of GGUF files, by its name, was made from."""
        name = _GGUF.sub("", repository.rpartition("/")[2])
        # Some put the owner of the original before its name: `Qwen_Qwen3-8B-GGUF`.
        wanted = {_bare(name), _bare(name.partition("_")[2])}
        for model in self.models:
            if any(_bare(variant.repository) in wanted for variant in model.variants):
                return model
        return None


def is_gguf(repository: str) -> bool:
    """Does a repository's name say that its weights are GGUF files?"""
    return bool(_GGUF.search(repository))


def _is_foreign(name: ModelName) -> bool:
    """Is that a name that ollama.com's own library cannot have?"""
    return name.host.lower() != DEFAULT_HOST or name.namespace.lower() != DEFAULT_NAMESPACE


def _family(model: KnownModel) -> str:
    return parse_model_name(model.name).model.lower()


def _haystack(model: KnownModel) -> str:
    repositories = [variant.repository for variant in model.variants]
    return " ".join((model.name, *model.also, model.about, model.kind, *repositories)).lower()


def _bare(repository: str) -> str:
    """A repository's name as its copies have it: without owner, case and signs."""
    name = re.sub(r"[^a-z0-9]", "", repository.rpartition("/")[2].lower())
    return name.removeprefix("meta")
