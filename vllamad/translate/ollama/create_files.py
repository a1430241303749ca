"""Checks the `files` and `adapters` of a request to create: uploaded files by name and digest.

Knows names and digests as texts, not the content of the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vllamad.core.overlay import Adapter
from vllamad.errors import BadInput
from vllamad.translate.go.json_decoder import quoted

MAX_FILES: Final = 1_000  # the largest checkpoints have two hundred
_NAME_LIMIT: Final = 255  # bytes of one part of a name, the limit of filesystems

_ADAPTER_FILES: Final = {"adapter_config.json", "adapter_model.safetensors"}
_GGUF: Final = (
    "unknown type: the engine serves no GGUF files; upload the model's safetensors files,"
    " or pull it"
)
_NO_WEIGHTS: Final = "unknown type: none of the files is a .safetensors file"


def check_files(files: Mapping[str, str]) -> None:
    """Refuse names that could leave the folder, and empty digests. Raises BadInput."""
    if len(files) > MAX_FILES:
        raise BadInput(f"cannot take {len(files)} files, at most {MAX_FILES}")
    for name in files:
        parts = name.split("/")
        if any(sign in name for sign in "\\:\0") or any(part in ("", ".", "..") for part in parts):
            raise BadInput("file path must be relative")
        if any(len(part.encode()) > _NAME_LIMIT for part in parts):
            raise BadInput(
                f"cannot use the file name {quoted(name[:40])}...: a part of it has over"
                f" {_NAME_LIMIT} bytes"
            )
    if not all(files.values()):
        raise BadInput("invalid digest format")


def checkpoint_of(files: Mapping[str, str]) -> dict[str, str]:
    """Return a checkpoint's files with their SHA-256 in hex. Raises BadInput for other files."""
    if not any(name.endswith(".safetensors") for name in files):
        raise BadInput(_GGUF if any(name.endswith(".gguf") for name in files) else _NO_WEIGHTS)
    return {name: _hex(digest) for name, digest in files.items()}


def adapter_of(files: Mapping[str, str]) -> Adapter:
    """Return the adapter made of these files. Raises BadInput."""
    by_name = {name.rpartition("/")[2]: digest for name, digest in files.items()}
    if set(by_name) != _ADAPTER_FILES or len(files) != len(_ADAPTER_FILES):
        raise BadInput("only one adapter is currently supported")
    return Adapter(
        config=_hex(by_name["adapter_config.json"]),
        weights=_hex(by_name["adapter_model.safetensors"]),
    )


def _hex(digest: str) -> str:
    kind, text = digest[:6], digest[7:]
    if kind != "sha256" or digest[6:7] not in ("-", ":") or len(text) != 64:
        raise BadInput("invalid digest format")
    if not set(text) <= set("0123456789abcdef"):
        raise BadInput("invalid digest format")
    return text
