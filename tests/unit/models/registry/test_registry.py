"""The catalogue that is shipped, and what a name in it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllamad.core.memory import GIB, Device, Machine
from vllamad.core.model_name import parse_model_name
from vllamad.core.variants import FORMATS, KnownModel
from vllamad.errors import BadInput, ConfigError, ModelNotFound
from vllamad.models.registry.registry import ModelRegistry, is_gguf
from vllamad.models.registry.registry_file import SHIPPED, load_registry
from vllamad.models.registry.resolve import MAIN, origin_from_name, resolve_origin

KNOWN = load_registry()
CPU = Machine(host=64 * GIB)
# Whose weights are given out only to those who agreed to something on their pages.
GATED = ("meta-llama/", "google/gemma-2", "google/gemma-3", "google/embeddinggemma", "CohereLabs/")


def card(gib: int, *capability: int) -> Machine:
    device = Device(index=0, total=gib * GIB, capability=(capability[0], capability[1]))
    return Machine(host=0, devices=(device,))


# What is shipped


def test_there_are_enough_names_that_people_type() -> None:
    assert len(KNOWN.models) >= 180
    assert len({model.name.partition(":")[0] for model in KNOWN.models}) >= 80


def test_no_name_is_there_twice() -> None:
    names = [name.lower() for model in KNOWN.models for name in (model.name, *model.also)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", sorted({model.name.split(":")[0] for model in KNOWN.models}))
def test_every_family_has_a_latest(family: str) -> None:
    found = KNOWN.find(parse_model_name(family))
    assert found is not None
    assert found.name.startswith(f"{family}:")
    assert KNOWN.find(parse_model_name(f"{family}:latest")) is found


@pytest.mark.parametrize("model", KNOWN.models, ids=lambda model: model.name)
def test_every_entry_says_what_must_be_known(model: KnownModel) -> None:
    assert model.license
    assert model.about
    assert model.context >= 512
    assert 1e6 < model.parameters < 1e12
    assert model.embeddings < model.parameters
    # An encoder keeps no cache; everything else does.
    assert model.kv_per_token > 0 or model.kind == "embedding"
    assert model.variants
    assert [one.format for one in model.variants] == [
        one for one in FORMATS if one in {variant.format for variant in model.variants}
    ]


@pytest.mark.parametrize("model", KNOWN.models, ids=lambda model: model.name)
def test_every_variant_that_is_gated_says_so(model: KnownModel) -> None:
    assert model.variants
    for variant in model.variants:
        assert not variant.repository.startswith(GATED) or variant.gated


@pytest.mark.parametrize("model", KNOWN.models, ids=lambda model: model.name)
def test_a_quantised_variant_is_smaller(model: KnownModel) -> None:
    sizes = [model.weights(variant) for variant in model.variants if variant.format != "gptq"]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("name", "form", "gigabytes"),
    [
        # As the hub lists the sizes of their files.
        ("qwen3:8b", "bf16", 16.4), ("qwen3:8b", "fp8", 9.4), ("qwen3:8b", "awq", 6.1),
        ("qwen2.5:72b", "awq", 41.6), ("llama3.1:8b", "bf16", 16.1), ("llama3.1:8b", "fp8", 9.1),
        ("llama3.1:70b", "awq", 39.8), ("smollm2:135m", "bf16", 0.27), ("mixtral:8x7b", "fp8", 47),
        ("gpt-oss:20b", "mxfp4", 13.8),
    ],
)  # fmt: skip
def test_the_reckoned_size_is_the_true_one(name: str, form: str, gigabytes: float) -> None:
    model = KNOWN.find(parse_model_name(name))
    assert model is not None
    variant = next(one for one in model.variants if one.format == form)
    assert model.weights(variant) / 1e9 == pytest.approx(gigabytes, rel=0.02)


# What a name means


@pytest.mark.parametrize(
    ("text", "machine", "repository", "variant"),
    [
        ("qwen3", card(80, 9, 0), "Qwen/Qwen3-8B", "bf16"),
        ("qwen3:8b", card(24, 8, 9), "Qwen/Qwen3-8B-FP8", "fp8"),
        ("Qwen3:8B", card(12, 8, 6), "Qwen/Qwen3-8B-AWQ", "awq"),
        ("library/qwen3:8b", card(80, 9, 0), "Qwen/Qwen3-8B", "bf16"),
        ("registry.ollama.ai/library/qwen3:8b", card(80, 9, 0), "Qwen/Qwen3-8B", "bf16"),
        ("qwen3:8b-awq", card(80, 9, 0), "Qwen/Qwen3-8B-AWQ", "awq"),
        ("qwen3:8b-fp16", card(12, 9, 0), "Qwen/Qwen3-8B", "bf16"),
        ("qwen2.5:7b-instruct", CPU, "Qwen/Qwen2.5-7B-Instruct", "bf16"),
        ("smollm2:135m", CPU, "HuggingFaceTB/SmolLM2-135M-Instruct", "bf16"),
        ("llama3.1", card(80, 9, 0), "meta-llama/Llama-3.1-8B-Instruct", "bf16"),
        ("deepseek-r1", card(80, 9, 0), "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "bf16"),
        ("gpt-oss", card(24, 8, 9), "openai/gpt-oss-20b", "mxfp4"),
        ("nomic-embed-text", CPU, "nomic-ai/nomic-embed-text-v1.5", "bf16"),
    ],
)
def test_a_known_name_stands_for_a_repository(
    text: str, machine: Machine, repository: str, variant: str
) -> None:
    origin = resolve_origin(parse_model_name(text), KNOWN, machine)
    assert (origin.repository, origin.revision, origin.variant) == (repository, MAIN, variant)


def test_a_revision_may_be_pinned() -> None:
    assert len(resolve_origin(parse_model_name("bge-m3"), KNOWN, CPU).revision) == 40


def test_a_longer_context_needs_a_smaller_variant() -> None:
    origin = resolve_origin(parse_model_name("qwen3:8b"), KNOWN, card(24, 8, 9), context=4096)
    assert origin.variant == "bf16"


def test_what_came_before_is_told() -> None:
    origin = resolve_origin(parse_model_name("qwen3:8b"), KNOWN, card(24, 8, 9))
    assert len(origin.passed_over) == 1
    assert origin.passed_over[0].startswith("bf16: needs ")


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B", MAIN),
        ("qwen/qwen3-8b", "qwen/qwen3-8b", MAIN),
        ("org/repo:v1.0", "org/repo", "v1.0"),
        ("org/repo:LATEST", "org/repo", MAIN),
        ("hf.co/org/repo", "org/repo", MAIN),
        ("hf.co/org/repo:4f2a", "org/repo", "4f2a"),
        ("huggingface.co/Org/Repo", "Org/Repo", MAIN),
        ("HF.CO/org/repo", "org/repo", MAIN),
        ("https://hf.co/org/repo", "org/repo", MAIN),
        ("https://huggingface.co/org/repo:main", "org/repo", MAIN),
    ],
)
def test_a_name_with_a_slash_goes_to_the_hub_as_it_is(
    text: str, repository: str, revision: str
) -> None:
    origin = resolve_origin(parse_model_name(text), KNOWN, CPU)
    assert (origin.repository, origin.revision, origin.variant) == (repository, revision, "")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("qwen3:7b", "qwen3 has the tags 0.6b, 1.7b, 4b,"),
        ("qwen3:8b-gptq", "qwen3 has the tags "),
        ("qwen3:8b-q4_K_M", "qwen3 has the tags "),
        ("qwen33", "did you mean qwen3, qwen3.5, qwen2"),
        ("lama3.1", "did you mean llama3.1,"),
        ("mistral-small4", "did you mean mistral-small"),
        ("zzz", "`vllamactl search` lists known names"),
        ("llama3.2-vision", "llama3.2-vision cannot be served: vLLM no longer runs it"),
        ("example.com/library/qwen3", "a repository of the hub is written org/repo"),
        ("evil.example/org/tiny", "a repository of the hub is written org/repo"),
    ],
)
def test_an_unknown_name_fails_as_ollama_does_with_what_comes_near(text: str, hint: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve_origin(parse_model_name(text), KNOWN, CPU)
    assert caught.value.message == "pull model manifest: file does not exist"
    assert hint[:40] in caught.value.hint


def test_a_pull_without_a_catalogue_takes_only_names_of_the_hub() -> None:
    with pytest.raises(ModelNotFound, match="file does not exist"):
        origin_from_name(parse_model_name("smollm2:135m"))


@pytest.mark.parametrize(
    ("text", "name", "repository"),
    [
        ("hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M", "qwen3:8b", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B-GGUF", "qwen3:8b", "Qwen/Qwen3-8B"),
        ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "llama3.1:8b",
         "meta-llama/Llama-3.1-8B-Instruct"),
        ("bartowski/Qwen_Qwen3-14B-GGUF", "qwen3:14b", "Qwen/Qwen3-14B"),
        ("ggml-org/gpt-oss-20b-gguf", "gpt-oss:20b", "openai/gpt-oss-20b"),
    ],
)  # fmt: skip
def test_gguf_is_refused_with_the_repository_to_use_instead(
    text: str, name: str, repository: str
) -> None:
    with pytest.raises(BadInput) as caught:
        resolve_origin(parse_model_name(text), KNOWN, CPU)
    assert "it holds GGUF files, which vllamad does not serve; " in caught.value.message
    assert caught.value.message.endswith(f"; {repository} holds the same model as safetensors")
    assert caught.value.hint == f"pull {name}"


def test_gguf_of_an_unknown_model_is_refused_too() -> None:
    with pytest.raises(BadInput, match=r"which vllamad does not serve$"):
        resolve_origin(parse_model_name("TheBloke/Own-Thing-GGUF"), KNOWN, CPU)


@pytest.mark.parametrize(("name", "said"), [("a/b-GGUF", True), ("a/gguf-b", False)])
def test_gguf_is_told_by_the_end_of_a_name(name: str, said: bool) -> None:
    assert is_gguf(name) == said


# Search


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("QWEN coder 7b", "qwen2.5-coder:7b"),
        ("vectors multilingual", "bge-m3:567m"),
        ("HuggingFaceTB 135m", "smollm2:135m"),
        ("vision qwen", "qwen2.5vl:3b"),
    ],
)
def test_a_search_finds_by_every_word(text: str, found: str) -> None:
    assert found in {model.name for model in KNOWN.search(text)}


def test_a_search_for_nothing_is_everything() -> None:
    assert len(KNOWN.search("")) == len(KNOWN.models)
    assert KNOWN.search("qwen3 no-such-word") == []


# The operator's own

MINE = """
[tiny]
about = "ours"
license = "mit"
latest = "1b"
[tiny.tags.1b]
parameters = 1e9
context = 4096
bf16 = "org/tiny"
"""


def written(tmp_path: Path, text: str, name: str = "catalog.toml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_a_file_adds_a_family(tmp_path: Path) -> None:
    known = load_registry([written(tmp_path, MINE)])
    assert resolve_origin(parse_model_name("tiny"), known, CPU).repository == "org/tiny"
    assert known.find(parse_model_name("qwen3:8b")) is not None


def test_a_file_adds_a_tag_and_changes_what_is_latest(tmp_path: Path) -> None:
    text = 'qwen3.latest = "mine"\n[qwen3.tags.mine]\nparameters = 1e9\ncontext = 1\nfp8 = "a/b"'
    known = load_registry([written(tmp_path, text)])
    assert resolve_origin(parse_model_name("qwen3"), known, CPU).repository == "a/b"
    assert known.find(parse_model_name("qwen3:8b")) is not None


def test_a_tag_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    text = '[qwen3.tags."8b"]\nparameters = 8e9\ncontext = 1024\nbf16 = "mirror/qwen"'
    model = load_registry([written(tmp_path, text)]).find(parse_model_name("qwen3:8b"))
    assert model is not None
    assert [variant.repository for variant in model.variants] == ["mirror/qwen"]


def test_of_two_files_the_later_one_counts(tmp_path: Path) -> None:
    files = [written(tmp_path, MINE), written(tmp_path, MINE.replace("org", "other"), "b.toml")]
    assert (
        resolve_origin(parse_model_name("tiny"), load_registry(files), CPU).repository
        == "other/tiny"
    )


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert len(load_registry([tmp_path / "none"]).models) == len(KNOWN.models)


def test_a_name_may_be_said_not_to_be_served(tmp_path: Path) -> None:
    known = load_registry([written(tmp_path, 'unserved.big = "too large for this house"')])
    assert known.hint(parse_model_name("big")) == "big cannot be served: too large for this house"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[tiny", "expected ']'"),
        ("tiny = 1", "tiny must be a table"),
        (MINE.replace('license = "mit"', ""), "tiny: object missing required field `license`"),
        (MINE.replace("context = 4096", 'context = "long"'),
         "tiny:1b: expected `int`, got `str` - at `context`"),
        (MINE.replace("bf16", "bf17"), "tiny:1b: object contains unknown field `bf17`"),
        (MINE.replace('latest = "1b"', 'latest = "2b"'), "tiny: latest is 2b, which is not one"),
        (MINE.replace("org/tiny", "tiny"), "tiny:1b: bf16: 'tiny' is not org/repo"),
        (MINE.replace('bf16 = "org/tiny"', ""), "tiny:1b has no repository"),
        (MINE.replace("org/tiny", "o/r").replace("tiny", '"a b"'), "a b:1b is not a model name"),
        (MINE + 'also = ["1B"]', ""),
        ('[qwen3.tags.x]\nalso = ["8b"]\nparameters = 1\ncontext = 1\nbf16 = "a/b"',
         "the name qwen3:8b occurs twice"),
    ],
)  # fmt: skip
def test_a_fault_names_the_file_and_the_field(tmp_path: Path, text: str, fault: str) -> None:
    file = written(tmp_path, text)
    if not fault:
        load_registry([file])
        return
    with pytest.raises(ConfigError) as caught:
        load_registry([file])
    assert caught.value.problems[0].startswith(f"{file}: ")
    assert fault in caught.value.problems[0]


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_registry([tmp_path])


def test_ours_is_shipped_beside_its_reader() -> None:
    assert SHIPPED.is_file()
    assert ModelRegistry().models == ()
