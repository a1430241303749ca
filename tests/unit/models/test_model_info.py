"""What clients read of a model: keys, order and formats as the contract has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.checkpoints import (
    BERT,
    CHATML_TEMPLATE,
    GEMMA3,
    QWEN3,
    QWEN3_TEMPLATE,
    SMOLLM2,
    write_checkpoint,
    write_safetensors,
)
from vllamad.config.settings import ModelSettings
from vllamad.models.checkpoint.metadata import facts_from
from vllamad.models.checkpoint.safetensors import Tensor
from vllamad.models.checkpoint.vllm_parsers import capabilities
from vllamad.models.installed import InstalledModel
from vllamad.models.model_info import (
    checkpoint_numbers,
    details_entry,
    parameter_size,
    parameters,
    show_response,
    tag_entry,
    tensor_entries,
)

WEIGHTS = {"w": Tensor("BF16", (134_515_008,), (0, 269_030_016))}


def installed(config=SMOLLM2, template=CHATML_TEMPLATE, **extra) -> InstalledModel:
    facts = facts_from(config, WEIGHTS, template=template, **extra)
    return InstalledModel(
        name="smollm2:135m",
        canonical="registry.ollama.ai/library/smollm2:135m",
        digest="0123456789abcdef" * 4,
        size=271_000_000,
        modified_at=1_700_000_000.25,
        folder=Path("/nowhere"),
        facts=facts,
        capabilities=capabilities(facts, {}, None),
        license="apache-2.0",
        settings=ModelSettings(),
    )


def test_a_tags_entry_has_the_contracts_keys_in_order():
    assert json.dumps(tag_entry(installed())) == json.dumps(
        {
            "name": "smollm2:135m",
            "model": "smollm2:135m",
            "modified_at": "2023-11-14T22:13:20.25Z",
            "size": 271_000_000,
            "digest": "0123456789abcdef" * 4,
            "details": {
                "parent_model": "",
                "format": "safetensors",
                "family": "llama",
                "families": ["llama"],
                "parameter_size": "134.52M",
                "quantization_level": "BF16",
                "context_length": 8192,
                "embedding_length": 576,
            },
            "capabilities": ["completion"],
        }
    )


def test_a_show_reply_has_the_contracts_keys_in_order():
    reply = show_response(installed(generation={"temperature": 0.6}))
    assert list(reply) == [
        "license",
        "modelfile",
        "parameters",
        "template",
        "details",
        "model_info",
        "capabilities",
        "modified_at",
    ]
    assert reply["template"] == CHATML_TEMPLATE
    assert "context_length" not in json.dumps(reply["details"])


def test_model_info_is_numbers_under_the_familys_keys():
    assert show_response(installed())["model_info"] == {
        "general.architecture": "llama",
        "general.basename": "smollm2:135m",
        "general.parameter_count": 134_515_008,
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "llama.block_count": 30,
        "llama.attention.head_count": 9,
        "llama.attention.head_count_kv": 3,
        "llama.attention.layer_norm_rms_epsilon": 1e-05,
        "llama.feed_forward_length": 1536,
        "llama.rope.freq_base": 100_000,
        "llama.vocab_size": 49152,
    }


def test_model_info_takes_the_name_the_client_asked_for():
    info = show_response(installed(), basename="SmolLM2:135M")["model_info"]
    assert isinstance(info, dict)
    assert info["general.basename"] == "SmolLM2:135M"


def test_a_vision_model_shows_its_vision_layers_and_its_inner_lengths():
    info = show_response(installed(GEMMA3))["model_info"]
    assert isinstance(info, dict)
    assert info["gemma3.vision.block_count"] == 27
    assert info["gemma3.embedding_length"] == 2560


@pytest.mark.parametrize(("configured", "shown"), [(512, 512), (0, 8192), (1_000_000, 8192)])
def test_the_context_length_is_the_smaller_of_the_models_and_the_configured(configured, shown):
    model = replace(installed(), settings=ModelSettings(context_length=configured))
    info = show_response(model)["model_info"]
    assert isinstance(info, dict)
    assert info["llama.context_length"] == shown


def test_what_is_not_known_is_left_out():
    model = replace(installed({}, ""), license="")
    reply = show_response(model)
    assert list(reply) == ["modelfile", "details", "model_info", "capabilities", "modified_at"]
    assert details_entry(model)["families"] is None
    assert details_entry(model)["quantization_level"] == "BF16"


def test_an_embedding_model_has_no_template():
    reply = show_response(installed(BERT))
    assert "template" not in reply
    assert reply["capabilities"] == ["embedding"]


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("rank", 4), ("", None)])
def test_an_embedding_model_says_how_it_pools_in_the_numbers_of_a_gguf(pooling, number):
    model = installed(BERT)
    model = replace(model, facts=replace(model.facts, pooling=pooling))
    assert checkpoint_numbers(model, "m").get("bert.pooling_type") == number


def test_a_thinking_model_says_so():
    capable = tag_entry(installed(QWEN3, QWEN3_TEMPLATE))["capabilities"]
    assert capable == ["completion", "tools", "thinking"]


def test_parameters_are_sorted_lines_of_aligned_names():
    model = installed(generation={"top_k": 20, "repetition_penalty": 1.1, "temperature": 0.7})
    assert parameters(model) == (
        "repeat_penalty                 1.1\n"
        "temperature                    0.7\n"
        "top_k                          20"
    )


def test_a_large_number_has_an_exponent_as_in_ollama():
    assert parameters(installed(generation={"top_k": 1_048_576})) == (
        "top_k                          1.048576e+06"
    )


def test_the_modelfile_names_the_model_and_what_it_sets():
    model = replace(installed(generation={"top_p": 1.0}), license='MIT "License"\nlong')
    assert show_response(model)["modelfile"] == (
        '# Modelfile generated by "ollama show"\n'
        "FROM smollm2:135m\n"
        "PARAMETER top_p 1\n"
        'LICENSE """MIT "License"\nlong"""\n'
    )


@pytest.mark.parametrize(("license", "line"), [("a\nb", 'LICENSE "a\nb"'), ("mit", "LICENSE mit")])
def test_a_licence_is_quoted_only_where_it_must_be(license, line):
    assert line in str(show_response(replace(installed(), license=license))["modelfile"])


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7_615_616_512, "7.6B"),
        (8_030_261_248, "8.0B"),
        (1_000_000_000, "1B"),
        (494_032_768, "494.03M"),
        (134_515_008, "134.52M"),
        (25_000_000, "25M"),
        (12_345, "12K"),
        (7, "7"),
        (0, "0"),
    ],
)
def test_parameter_counts_are_printed_as_ollama_does(count, text):
    assert parameter_size(count) == text


@pytest.mark.case("B12")
def test_tensors_are_those_of_the_checkpoints_headers_by_name(tmp_path: Path) -> None:
    index = {"weight_map": {"b": "m-1.safetensors", "a": "m-2.safetensors"}}
    folder = write_checkpoint(tmp_path / "m", **{"model.safetensors.index_json": index})
    write_safetensors(folder / "m-1.safetensors", {"b": ("F32", (3,))})
    write_safetensors(folder / "m-2.safetensors", {"a": ("BF16", (4, 2))})
    listed = tensor_entries(replace(installed(), folder=folder))
    assert list(listed) == [
        {"name": "a", "type": "BF16", "shape": [4, 2]},
        {"name": "b", "type": "F32", "shape": [3]},
    ]
    shown = show_response(installed(), tensors=listed)
    assert list(shown)[-4:] == ["model_info", "tensors", "capabilities", "modified_at"]
    assert "tensors" not in show_response(installed())


def test_the_headers_are_read_once_for_as_long_as_the_files_stay(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    one = replace(installed(), folder=folder)
    first = tensor_entries(one)
    write_safetensors(folder / "model.safetensors", {"other": ("F32", (3,))})
    assert tensor_entries(one) is first
    assert tensor_entries(replace(one, digest="f" * 64))[0]["name"] == "other"
