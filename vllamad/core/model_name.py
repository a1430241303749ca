"""Model names, read and printed as Ollama does: [scheme://][host/][namespace/]model[:tag].

Knows no installed models and no registry.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from vllamad.errors import BadInput

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

ModelSource = Literal["", "local", "cloud"]

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A valid name with every part filled in. Its case is kept; names are compared by `key`."""

    host: str = DEFAULT_HOST
    namespace: str = DEFAULT_NAMESPACE
    model: str
    tag: str = DEFAULT_TAG

    def canonical(self) -> str:
        """The full form, as `registry.ollama.ai/library/smollm2:135m`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def display(self) -> str:
        """The shortest form that parses to the same name; it always has a tag."""
        if self.host.lower() != DEFAULT_HOST:
            return self.canonical()
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    def key(self) -> str:
        """The name in lower case: Ollama ignores case."""
        return self.canonical().lower()


def parse_model_name(text: str) -> ModelName:
    """Parse a name and fill in the missing parts. Raises BadInput with Ollama's text."""
    rest, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        rest, colon, tag = text, "", DEFAULT_TAG
    # From the right, as a host may have a port: the rest before the namespace is the host.
    rest, slash, model = rest.rpartition("/")
    namespace, host = DEFAULT_NAMESPACE, DEFAULT_HOST
    if slash:
        rest, slash, namespace = rest.rpartition("/")
        if slash:
            _, scheme, after = rest.partition("://")
            host = after if scheme else rest
    if not (
        _HOST.fullmatch(host)
        and _NAMESPACE.fullmatch(namespace)
        and _PART.fullmatch(model)
        and _PART.fullmatch(tag)
    ):
        raise BadInput("invalid model name")
    return ModelName(host=host, namespace=namespace, model=model, tag=tag)


def split_source(text: str) -> tuple[str, ModelSource]:
    """Split the `:local`, `:cloud` or `-cloud` ending off a name.

    The name is trimmed, may be empty, and is not checked. Raises BadInput for two endings in a
    row.
    """
    trimmed = text.strip()
    base, source = _cut_source(trimmed)
    if source and _cut_source(base)[1]:
        quoted = json.dumps(trimmed, ensure_ascii=False)
        raise BadInput(f"use either :local or :cloud, not both: {quoted}")
    return base, source


def _cut_source(text: str) -> tuple[str, ModelSource]:
    base, colon, ending = text.rpartition(":")
    word = ending.strip().lower()
    if not colon:
        return text, ""
    if word == "cloud":
        return base, "cloud"
    if word == "local":
        return base, "local"
    if "/" not in ending and word.endswith("-cloud"):
        return text.rstrip()[: -len("-cloud")], "cloud"
    return text, ""
