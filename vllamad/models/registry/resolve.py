"""Where on the hub a model comes from: the repository and revision that a name stands for."""

from __future__ import annotations

from dataclasses import dataclass

from vllamad.core.memory import Machine
from vllamad.core.model_name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName
from vllamad.core.variants import choose_variant
from vllamad.errors import BadInput, ModelNotFound
from vllamad.models.registry.registry import ModelRegistry, is_gguf

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
    passed_over: tuple[str, ...] = ()  # why no better variant was taken


def resolve_origin(
    name: ModelName, known: ModelRegistry, machine: Machine, context: int = 0
) -> Origin:
    """The origin of `name`; where it is the name of a known model, of the variant that suits.

    Raises ModelNotFound with Ollama's text and what comes near, BadInput for files of GGUF.
    """
    if names_repository(name):
        origin = origin_from_name(name)
        if is_gguf(origin.repository):
            raise _gguf(origin.repository, known)
        return origin
    model = known.find(name)
    if model is None:
        raise ModelNotFound(NO_MANIFEST, hint=known.hint(name))
    choice = choose_variant(model, machine, context)
    return Origin(
        repository=choice.variant.repository,
        revision=choice.variant.revision,
        variant=choice.variant.format,
        passed_over=choice.passed_over,
    )


def _gguf(repository: str, known: ModelRegistry) -> BadInput:
    model = known.made_from(repository)
    what = f"cannot pull {repository}: it holds GGUF files, which the engine does not read"
    if model is None:
        return BadInput(what, hint="pull the repository they were made from")
    return BadInput(
        f"{what}; {model.variants[0].repository} holds the same as safetensors",
        hint=f"pull {model.name}",
    )


def origin_from_name(name: ModelName) -> Origin:
    """The origin that `name` itself spells: `org/repo`, `hf.co/org/repo`, `:TAG` the revision.

    Raises ModelNotFound, with Ollama's text, for a name that is none of a hub's.
    """
    if not names_repository(name):
        raise ModelNotFound(
            NO_MANIFEST,
            hint=f"{name.display()} names no repository of the hub: those are called org/repo",
        )
    revision = MAIN if name.tag.lower() == DEFAULT_TAG else name.tag
    return Origin(repository=f"{name.namespace}/{name.model}", revision=revision)


def names_repository(name: ModelName) -> bool:
    """Does the name itself say which repository of the hub it means?"""
    return name.host.lower() in HUB_HOSTS and name.namespace.lower() != DEFAULT_NAMESPACE
