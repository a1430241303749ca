"""LoRA adapters in the store: made of two uploaded files and checked against their base model.

    adapters/BASE/ID/{adapter_config.json,adapter_model.safetensors}

BASE is a hash of the folder of the base model's weights. A worker of that model loads all its
adapters when it starts, so an adapter that cannot be loaded is refused here. Everything blocks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from vllamad.core.overlay import Adapter
from vllamad.errors import BadInput, HostProblem, VllamadError
from vllamad.models.checkpoint.json_access import (
    Json,
    decode_object,
    get_object,
    get_text,
    get_whole,
)
from vllamad.models.checkpoint.safetensors import Tensor, read_header
from vllamad.models.checkpoint.weights import INDEX, quantization_of, weight_files
from vllamad.models.store.safe_files import list_files, read_bounded, sync_folder
from vllamad.models.store.upload_blobs import blob_path

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RANK_LIMIT = 512  # the highest that vLLM supports
_CONFIG_LIMIT = 1 << 20  # bytes
_JSON_LIMIT = 64 << 20

# Settings that change what an adapter computes, and that vLLM does not support.
_UNSUPPORTED = (
    "use_dora", "lora_bias", "use_qalora", "use_bdlora", "bias", "modules_to_save",
    "layer_replication", "alora_invocation_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """An adapter as it is passed to the engine; `size` is bytes."""

    id: str
    folder: Path
    rank: int
    size: int


def adapters_folder(models: Path, base: Path) -> Path:
    """The folder of the adapters for the weights in `base`."""
    inside = base.is_relative_to(models)  # relative, so that the store may be moved
    name = str(base.relative_to(models)) if inside else str(base)
    return models / "adapters" / hashlib.sha256(name.encode()).hexdigest()[:32]


def adapter_folder(models: Path, base: Path, adapter: Adapter) -> Path:
    """The folder of one adapter for the weights in `base`."""
    return adapters_folder(models, base) / adapter.id


def list_adapters(models: Path, base: Path) -> tuple[StoredAdapter, ...]:
    """All adapters for the weights in `base`; an unreadable one is left out."""
    try:
        names = sorted(os.listdir(adapters_folder(models, base)))
    except FileNotFoundError:
        return ()
    adapters: list[StoredAdapter] = []
    for name in names:
        folder = adapters_folder(models, base) / name
        try:
            size = os.stat(folder / WEIGHTS).st_size
            adapters.append(
                StoredAdapter(
                    id=name, folder=folder, rank=_rank(_config(folder / CONFIG)), size=size
                )
            )
        except (VllamadError, OSError):
            continue
    return tuple(adapters)


def assemble_adapter(models: Path, base: Path, adapter: Adapter) -> Path:
    """Make the folder of an adapter out of its blobs, and return it; it may exist already.

    Raises BadInput for a missing blob, an invalid file, or an adapter of another model.
    """
    folder = adapter_folder(models, base, adapter)
    if folder.exists():
        return folder
    draft = folder.with_name(f".{adapter.id}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o755, parents=True)
    try:
        for name, digest in ((CONFIG, adapter.config), (WEIGHTS, adapter.weights)):
            _link(blob_path(models, f"sha256:{digest}"), draft / name)
        check_adapter(draft, base)
        sync_folder(draft)
        draft.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def check_adapter(folder: Path, base: Path) -> None:
    """Raise BadInput where vLLM cannot apply this adapter to the weights in `base`."""
    config = _config(folder / CONFIG)
    if get_text(config, "peft_type").upper() != "LORA":
        raise BadInput(
            "cannot use the adapter: its peft_type is not LORA",
            hint="convert it to LoRA, or merge it into the model's weights",
        )
    for key in _UNSUPPORTED:
        if config.get(key) not in (None, False, "none", [], {}):
            raise BadInput(f"cannot use the adapter: the engine does not support its {key}")
    _rank(config)
    names = {name for name, _ in list_files(base)}
    tensors = _base_tensors(base, names)
    quantised = bool(quantization_of(_json(base, "config.json", names)))
    _check_shapes(read_header(folder / WEIGHTS), tensors, quantised=quantised)


def remove_adapters_except(models: Path, used: Collection[str]) -> None:
    """Remove every adapter whose id is not in `used`."""
    for folder in (models / "adapters").glob("*/*"):
        if folder.name not in used:
            shutil.rmtree(folder)
    for empty in (models / "adapters").glob("*"):
        if not any(empty.iterdir()):
            empty.rmdir()


def _link(blob: Path, path: Path) -> None:
    """Hard-link a blob to `path`, readable for the account the engine runs as."""
    try:
        os.link(blob, path)
        os.chmod(path, 0o644)
    except FileNotFoundError as error:
        digest = blob.name.replace("-", ":")
        raise BadInput(f'blob "{digest}" not found', hint="upload it first") from error
    except OSError as error:
        raise HostProblem(f"cannot store the adapter: {error.strerror}") from error


def _config(path: Path) -> Json:
    return decode_object(read_bounded(path, _CONFIG_LIMIT), path.name)


def _rank(config: Json) -> int:
    pattern = get_object(config, "rank_pattern")
    rank = max(get_whole(config, "r"), *(get_whole(pattern, key) for key in pattern), 0)
    if not 0 < rank <= RANK_LIMIT:
        raise BadInput(f"cannot use the adapter: its rank is not a number from 1 to {RANK_LIMIT}")
    return rank


def _json(folder: Path, name: str, names: set[str]) -> Json:
    return decode_object(read_bounded(folder / name, _JSON_LIMIT), name) if name in names else {}


def _base_tensors(base: Path, names: set[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in weight_files(names, _json(base, INDEX, names)):
        tensors |= read_header(base / name)
    return tensors


def _check_shapes(
    lora: Mapping[str, Tensor], base: Mapping[str, Tensor], *, quantised: bool
) -> None:
    """Check that A's input and B's output have the width of the layer they are added to."""
    layers: dict[str, set[tuple[int, ...]]] = {}
    for name, tensor in base.items():  # a vision tower has layers of the same names
        layers.setdefault(_tail(name), set()).add(tensor.shape)
    matched = False
    for name, tensor in lora.items():
        part, side = (".lora_A.", 1) if ".lora_A." in name else (".lora_B.", 0)
        module, separator, _ = name.rpartition(part)
        shapes = layers.get(_tail(f"{module}.weight"), set())
        widths = {shape[side] for shape in shapes if len(shape) == 2}
        if not separator or not widths or len(tensor.shape) != 2:
            continue
        matched = True
        if tensor.shape[side] not in widths and not quantised:
            raise BadInput(
                f"cannot use the adapter: {module[-80:]} has width {tensor.shape[side]}, in the"
                f" model {max(widths)}",
                hint="name the model it was trained on in FROM",
            )
    if not matched and not quantised:
        raise BadInput(
            "cannot use the adapter: the model has none of its layers",
            hint="name the model it was trained on in FROM",
        )


def _tail(name: str) -> str:
    """A layer's name without the prefix of its library's wrapper."""
    return name[max(0, name.find("layers.")) :]
