"""Where on the hub a model comes from: the repository and revision that a name stands for.

Knows the names that carry their repository in them; those of the catalogue are in `known.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllamad.core.model_name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName
from vllamad.errors import ModelNotFound

HUB_HOSTS = (DEFAULT_HOST, "hf.co", "huggingface.co")
MAIN = "main"  # what a hub calls the newest there is

# What Ollama says of a name no registry knows; its command line looks for this text.
NO_MANIFEST = "pull model manifest: file does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A repository at a revision, and which of a model's variants it holds, if that is known."""

    repository: str
    revision: str = MAIN
    variant: str = ""


def origin_in(name: ModelName) -> Origin:
    """The origin that `name` itself spells: `org/repo`, `hf.co/org/repo`, `:TAG` the revision.

    Raises ModelNotFound, with Ollama's text, for a name that is none of a hub's.
    """
    if not is_of_hub(name):
        raise ModelNotFound(
            NO_MANIFEST,
            hint=f"{name.display()} names no repository of the hub: those are called org/repo",
        )
    revision = MAIN if name.tag.lower() == DEFAULT_TAG else name.tag
    return Origin(repository=f"{name.namespace}/{name.model}", revision=revision)


def is_of_hub(name: ModelName) -> bool:
    """Does the name itself say which repository of the hub it means?"""
    return name.host.lower() in HUB_HOSTS and name.namespace.lower() != DEFAULT_NAMESPACE
