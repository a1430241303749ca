"""A LoRA adapter in the store, and a base model that it fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.checkpoints import Shapes, header_of, write_safetensors
from vllamad.core.overlay import Adapter
from vllamad.models.store.upload_blobs import blob_path

Q = "model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
FITS: Shapes = {
    f"base_model.model.{Q}.lora_A.weight": ("F32", (4, 6)),
    f"base_model.model.{Q}.lora_B.weight": ("F32", (8, 4)),
}


def base_of(folder: Path, config: Mapping[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(
        folder / "model.safetensors",
        {
            f"{Q}.weight": ("BF16", (8, 6)),
            "vision.layers.0.self_attn.q_proj.weight": ("BF16", (3, 3)),
            "norm.weight": ("BF16", (6,)),
        },
    )
    return folder


def blob(models: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    path = blob_path(models, f"sha256:{digest}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def adapter(models: Path, config: Mapping[str, object] = CONFIG, shapes: Shapes = FITS) -> Adapter:
    entries, size = header_of(shapes)
    header = json.dumps(entries).encode()
    return Adapter(
        config=blob(models, json.dumps(config).encode()),
        weights=blob(models, len(header).to_bytes(8, "little") + header + bytes(size)),
    )
