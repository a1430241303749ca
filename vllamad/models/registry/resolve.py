"""Resolves a model name to a repository and revision of the hub; asks no hub."""

from __future__ import annotations

from dataclasses import dataclass

from vllamad.core.memory import Machine
from vllamad.core.model_name import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName
from vllamad.core.variants import choose_variant
from vllamad.errors import BadInput, ModelNotFound
from vllamad.models.registry.registry import ModelRegistry, is_gguf

HUB_HOSTS = (DEFAULT_HOST, "hf.co", "huggingface.co")
MAIN = "main"  # the hub's name for the newest revision

# Ollama's text for an unknown name; its command line looks for it.
NO_MANIFEST = "pull model manifest: file does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A repository at a revision, and the variant of a model that it holds, if known."""

    repository: str
    revision: str = MAIN
    variant: str = ""
    passed_over: tuple[str, ...] = ()  # the reasons why no better variant was chosen


def resolve_origin(
    name: ModelName, known: ModelRegistry, machine: Machine, context: int = 0
) -> Origin:
    """The origin of `name`: its repository, or for a known model the variant for this machine.

    Raises ModelNotFound with Ollama's text and a hint, BadInput for a repository of GGUF files.
    """
    if names_repository(name):
        origin = origin_from_name(name)
        if is_gguf(origin.repository):
            raise _gguf_refusal(origin.repository, known)
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


def _gguf_refusal(repository: str, known: ModelRegistry) -> BadInput:
    model = known.original_of(repository)
    problem = f"cannot pull {repository}: it holds GGUF files, which vllamad does not serve"
    if model is None:
        return BadInput(problem, hint="pull the safetensors repository it was converted from")
    return BadInput(
        f"{problem}; {model.variants[0].repository} holds the same model as safetensors",
        hint=f"pull {model.name}",
    )


def origin_from_name(name: ModelName) -> Origin:
    """The origin in a name such as `org/repo` or `hf.co/org/repo`; a tag is the revision.

    Raises ModelNotFound, with Ollama's text, for a name that does not contain a repository.
    """
    if not names_repository(name):
        raise ModelNotFound(
            NO_MANIFEST,
            hint=f"a repository of the hub is written org/repo, not {name.display()}",
        )
    revision = MAIN if name.tag.lower() == DEFAULT_TAG else name.tag
    return Origin(repository=f"{name.namespace}/{name.model}", revision=revision)


def names_repository(name: ModelName) -> bool:
    """Whether the name itself contains a repository of the hub."""
    return name.host.lower() in HUB_HOSTS and name.namespace.lower() != DEFAULT_NAMESPACE
