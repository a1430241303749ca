"""Derives the files of the weights, the number of parameters and the quantisation.

Works on decoded headers and config.json; reads no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from vllamad.errors import BadInput
from vllamad.models.checkpoint.json_access import Json, get_list, get_object, get_text, get_whole
from vllamad.models.checkpoint.safetensors import BITS, Tensor
from vllamad.models.store.safe_files import safe_path

INDEX = "model.safetensors.index.json"


def weight_files(names: Collection[str], index: Json) -> list[str]:
    """The files that the engine loads: those of the index, else those beside config.json.

    Raises BadInput where there are none, and where the index names a missing one.
    """
    listed = {safe_path(str(name)) for name in get_object(index, "weight_map").values()}
    missing = sorted(listed - set(names))
    if missing:
        raise BadInput(f"cannot find {missing[0]}, one of {len(listed)} files of weights")
    beside = {name for name in names if name.endswith(".safetensors") and "/" not in name}
    adapters = {name for name in beside if name.startswith("adapter_")}
    # Some repositories have the same weights again in Mistral's layout.
    duplicates = {name for name in beside if name.startswith("consolidated")}
    chosen = listed or (beside - adapters - duplicates) or (beside - adapters)
    if not chosen:
        raise BadInput(
            "cannot find weights: there is no .safetensors file",
            hint="only safetensors weights are loaded: reading other formats can run code",
        )
    return sorted(chosen)


def main_dtype(tensors: Iterable[Tensor]) -> str:
    """The type of most bytes of the weights, in safetensors' spelling; "" without weights."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    return max(sizes, key=lambda dtype: sizes[dtype], default="")


# The tensors with which a quantised checkpoint describes its weights; they are not parameters.
_BESIDE_WEIGHTS = (
    "scales", "scale", "scale_inv", "scale_2", "zeros", "zero_point", "zp", "g_idx", "absmax",
    "quant_map", "nested_quant_map", "nested_absmax", "bitsandbytes__nf4", "bitsandbytes__fp4",
    "weight_shape", "SCB", "weight_format",
)  # fmt: skip


def count_parameters(tensors: Mapping[str, Tensor], config: Json) -> int:
    """The number of parameters, packed or not."""
    bits = bits_of(config)
    if not bits:
        return sum(tensor.elements for tensor in tensors.values())
    return sum(
        _packed(tensor, bits)
        for name, tensor in tensors.items()
        if not name.endswith(_BESIDE_WEIGHTS)
    )


def _packed(tensor: Tensor, bits: int) -> int:
    """The weights in a tensor: an integer packs several, a float is one."""
    if tensor.dtype in ("U8", "I8", "I32", "U32"):
        return tensor.elements * BITS[tensor.dtype] // bits
    return tensor.elements


def quantization_of(config: Json) -> Json:
    """The checkpoint's quantisation settings; empty where it has none."""
    for source in (config, get_object(config, "text_config")):
        for key in ("quantization_config", "compression_config"):
            if settings := get_object(source, key):
                return settings
    return {}


def bits_of(config: Json) -> int:
    """Bits of one quantised weight; 0 for a checkpoint that is not quantised."""
    quantization = quantization_of(config)
    if not quantization:
        return 0
    label = quantization_label(config, "")
    if "FP4" in label or label.endswith("-4bit"):
        return 4
    return get_whole(quantization, "bits") or get_whole(_group(quantization), "num_bits") or 8


def quantization_label(config: Json, dtype: str) -> str:
    """The format of the weights as displayed: `BF16`, `FP8`, `AWQ-4bit`, ..."""
    quantization = quantization_of(config)
    if not quantization:
        return _dtype_label(dtype, config)
    match get_text(quantization, "quant_method").lower():
        case ("awq" | "gptq") as method:
            return f"{method.upper()}-{get_whole(quantization, 'bits') or 4}bit"
        case "bitsandbytes":
            return "BNB-4bit" if quantization.get("load_in_4bit") else "BNB-8bit"
        case "fp8" | "fbgemm_fp8":
            return "FP8"
        case "compressed-tensors":
            return _compressed_label(quantization)
        case "modelopt":
            inner = get_object(quantization, "quantization")
            return (
                get_text(quantization, "quant_algo") or get_text(inner, "quant_algo")
            ).upper() or "FP8"
        case method:
            return method.upper() or "quantized"


def _compressed_label(quantization: Json) -> str:
    layout = get_text(quantization, "format")
    for known in ("nvfp4", "mxfp4"):
        if layout.startswith(known):
            return known.upper()
    group = _group(quantization)
    bits = get_whole(group, "num_bits") or 8
    return f"FP{bits}" if get_text(group, "type") == "float" else f"INT{bits}"


def _group(quantization: Json) -> Json:
    """The weight settings of the first group of layers, in the format of compressed-tensors."""
    groups = get_object(quantization, "config_groups")
    return get_object(get_object(groups, next(iter(groups), "")), "weights")


def _dtype_label(dtype: str, config: Json) -> str:
    if dtype.startswith("F8"):
        return "FP8"
    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    return dtype or names.get(get_text(config, "dtype", "torch_dtype"), "unknown")


def names_of(config: Json) -> tuple[str, ...]:
    """The architectures in config.json, usually one."""
    return tuple(name for name in get_list(config, "architectures") if isinstance(name, str))
