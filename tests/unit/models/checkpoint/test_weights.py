"""Parameters, quantisation labels and the choice of weight files, from literals."""

from __future__ import annotations

import json

import pytest

from tests.support.checkpoints import Shapes, header_of
from vllamad.errors import BadInput
from vllamad.models.checkpoint.safetensors import Tensor, parse_header
from vllamad.models.checkpoint.weights import (
    count_parameters,
    main_dtype,
    quantization_label,
    weight_files,
)


def tensors(shapes: Shapes) -> dict[str, Tensor]:
    entries, size = header_of(shapes)
    return parse_header(json.dumps(entries).encode(), size)


def quantized(**settings: object) -> dict[str, object]:
    return {"quantization_config": settings}


def compressed(layout: str, bits: int, kind: str) -> dict[str, object]:
    return quantized(
        quant_method="compressed-tensors",
        format=layout,
        config_groups={"group_0": {"weights": {"num_bits": bits, "type": kind}}},
    )


@pytest.mark.parametrize(
    ("config", "dtype", "label"),
    [
        ({}, "BF16", "BF16"),
        ({}, "F8_E4M3", "FP8"),
        ({"torch_dtype": "float16"}, "", "F16"),
        ({"dtype": "bfloat16"}, "", "BF16"),
        ({}, "", "unknown"),
        (quantized(quant_method="awq", bits=4), "I32", "AWQ-4bit"),
        (quantized(quant_method="gptq", bits=8), "I32", "GPTQ-8bit"),
        (quantized(quant_method="fp8"), "F8_E4M3", "FP8"),
        (quantized(quant_method="mxfp4"), "U8", "MXFP4"),
        (quantized(quant_method="bitsandbytes", load_in_4bit=True), "U8", "BNB-4bit"),
        (quantized(quant_method="bitsandbytes", load_in_8bit=True), "I8", "BNB-8bit"),
        (quantized(quant_method="modelopt", quant_algo="NVFP4"), "U8", "NVFP4"),
        (quantized(quant_method="modelopt", quantization={"quant_algo": "FP8"}), "U8", "FP8"),
        (quantized(bits=4), "U8", "quantized"),
        (compressed("nvfp4-pack-quantized", 4, "float"), "U8", "NVFP4"),
        (compressed("float-quantized", 8, "float"), "F8_E4M3", "FP8"),
        (compressed("pack-quantized", 4, "int"), "I32", "INT4"),
        ({"text_config": quantized(quant_method="awq", bits=4)}, "I32", "AWQ-4bit"),
    ],
)
def test_quantization_is_named_as_users_know_it(config, dtype, label):
    assert quantization_label(config, dtype) == label


@pytest.mark.parametrize(
    ("config", "shapes", "count"),
    [
        ({}, {"w": ("BF16", (10, 20)), "logit_scale": ("F32", ())}, 201),
        (
            quantized(quant_method="awq", bits=4),
            {
                "q.qweight": ("I32", (4096, 512)),
                "q.qzeros": ("I32", (32, 512)),
                "q.scales": ("F16", (32, 4096)),
                "norm.weight": ("F16", (4096,)),
            },
            4096 * 4096 + 4096,
        ),
        (
            quantized(quant_method="gptq", bits=4),
            {"q.qweight": ("I32", (512, 64)), "q.g_idx": ("I32", (4096,))},
            4096 * 64,
        ),
        (
            quantized(quant_method="fp8"),
            {"q.weight": ("F8_E4M3", (64, 64)), "q.weight_scale_inv": ("F32", (1, 1))},
            4096,
        ),
        (
            quantized(quant_method="mxfp4"),
            {"e.blocks": ("U8", (32, 90, 16)), "e.scales": ("U8", (32, 90)), "n": ("BF16", (7,))},
            32 * 90 * 32 + 7,
        ),
        (
            quantized(quant_method="bitsandbytes", load_in_4bit=True),
            {
                "q.weight": ("U8", (2048, 1)),
                "q.weight.absmax": ("U8", (64,)),
                "q.weight.quant_state.bitsandbytes__nf4": ("U8", (90,)),
            },
            4096,
        ),
        (
            compressed("pack-quantized", 4, "int"),
            {"q.weight_packed": ("I32", (64, 8)), "q.weight_shape": ("I64", (2,))},
            4096,
        ),
        (
            compressed("int-quantized", 8, "int"),
            {"q.weight": ("I8", (64, 64)), "q.weight_scale": ("BF16", (64, 1))},
            4096,
        ),
    ],
    ids=["plain", "awq", "gptq", "fp8", "mxfp4", "bnb", "packed", "int8"],
)
def test_packed_weights_count_as_what_they_unpack_to(config, shapes, count):
    assert count_parameters(tensors(shapes), config) == count


def test_the_main_type_is_the_one_most_bytes_have():
    held = tensors({"w": ("BF16", (100,)), "a": ("F32", (4,)), "b": ("F32", (4,))})
    assert main_dtype(held.values()) == "BF16"
    assert main_dtype([]) == ""


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "config.json"], ["model.safetensors"]),
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["a.safetensors", "adapter_model.safetensors"], ["a.safetensors"]),
        (["original/x.safetensors", "b.safetensors"], ["b.safetensors"]),
    ],
)
def test_without_an_index_the_weights_lie_beside_the_configuration(names, chosen):
    assert weight_files(names, {}) == chosen


def test_an_index_names_the_weights():
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}
    held = ["m-1.safetensors", "m-2.safetensors", "other.safetensors"]
    assert weight_files(held, index) == ["m-1.safetensors", "m-2.safetensors"]


def test_a_file_the_index_names_and_nobody_has_is_named():
    with pytest.raises(BadInput, match=r"cannot find m-2.safetensors, one of 2 files"):
        weight_files(
            ["m-1.safetensors"], {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
        )


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a\\b", "c:x", 7])
def test_an_index_cannot_point_outside(name):
    with pytest.raises(BadInput):
        weight_files(["x.safetensors"], {"weight_map": {"a": name}})


@pytest.mark.parametrize("names", [["pytorch_model.bin"], ["adapter_model.safetensors"], []])
def test_weights_in_other_formats_are_refused(names):
    with pytest.raises(BadInput, match=r"there is no .safetensors file"):
        weight_files(names, {})
