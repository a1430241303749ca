"""What the weights are: which files hold them, how many parameters, in which quantisation.

Pure arithmetic over decoded headers and config.json; reads no file.
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
    """Name the files the engine will load: those of the index, else the ones beside config.json.

    Raises BadInput where there are none, or where the index names one that is missing.
    """
    listed = {safe_path(str(name)) for name in get_object(index, "weight_map").values()}
    missing = sorted(listed - set(names))
    if missing:
        raise BadInput(f"cannot find {missing[0]}, one of {len(listed)} files of weights")
    beside = {name for name in names if name.endswith(".safetensors") and "/" not in name}
    adapters = {name for name in beside if name.startswith("adapter_")}
    # Some repositories hold the same weights twice, the second time in the vendor's own layout.
    twice = {name for name in beside if name.startswith("consolidated")}
    chosen = listed or (beside - adapters - twice) or (beside - adapters)
    if not chosen:
        raise BadInput(
            "cannot find weights: there is no .safetensors file",
            hint="weights in other formats are not loaded, as reading them can run code",
        )
    return sorted(chosen)


def main_dtype(tensors: Iterable[Tensor]) -> str:
    """The type most bytes of weights have, as safetensors spells it; empty without weights."""
    held: Counter[str] = Counter()
    for tensor in tensors:
        held[tensor.dtype] += tensor.size
    return max(held, key=lambda dtype: held[dtype], default="")


# Beside the weights, a quantised checkpoint stores how to read them; that is not parameters.
_BESIDE_WEIGHTS = (
    "scales", "scale", "scale_inv", "scale_2", "zeros", "zero_point", "zp", "g_idx", "absmax",
    "quant_map", "nested_quant_map", "nested_absmax", "bitsandbytes__nf4", "bitsandbytes__fp4",
    "weight_shape", "SCB", "weight_format",
)  # fmt: skip


def count_parameters(tensors: Mapping[str, Tensor], config: Json) -> int:
    """Count parameters as the model has them, whatever they are packed into."""
    bits = bits_of(config)
    if not bits:
        return sum(tensor.elements for tensor in tensors.values())
    return sum(
        _packed(tensor, bits)
        for name, tensor in tensors.items()
        if not name.endswith(_BESIDE_WEIGHTS)
    )


def _packed(tensor: Tensor, bits: int) -> int:
    """Integers hold several small weights each; a float is one weight."""
    if tensor.dtype in ("U8", "I8", "I32", "U32"):
        return tensor.elements * BITS[tensor.dtype] // bits
    return tensor.elements


def quantization_of(config: Json) -> Json:
    """The checkpoint's quantisation settings; empty where it has none."""
    for place in (config, get_object(config, "text_config")):
        for key in ("quantization_config", "compression_config"):
            if found := get_object(place, key):
                return found
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
    """How the weights are stored, in the words users know: `BF16`, `FP8`, `AWQ-4bit`, ..."""
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
    """How compressed-tensors says the first group of layers stores its weights."""
    groups = get_object(quantization, "config_groups")
    return get_object(get_object(groups, next(iter(groups), "")), "weights")


def _dtype_label(dtype: str, config: Json) -> str:
    if dtype.startswith("F8"):
        return "FP8"
    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    return dtype or names.get(get_text(config, "dtype", "torch_dtype"), "unknown")


def names_of(config: Json) -> tuple[str, ...]:
    """The architectures config.json names, most often one."""
    return tuple(name for name in get_list(config, "architectures") if isinstance(name, str))
