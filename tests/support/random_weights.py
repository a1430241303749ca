"""Tiny checkpoints with random weights that real vLLM loads; standard library only."""

from __future__ import annotations

import json
import math
import random
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

BYTES = 256  # tokens of a byte each; special ones follow
Shapes = dict[str, tuple[int, ...]]


def byte_tokenizer(special: Sequence[str]) -> dict[str, object]:
    """A tokenizer.json to which every byte is a token; nothing is ever merged."""
    signs = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(BYTES) if byte not in signs]
    spelled = {byte: chr(byte) for byte in signs}
    spelled |= {byte: chr(BYTES + number) for number, byte in enumerate(others)}
    of_bytes = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
    }  # fmt: skip
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": BYTES + number, "content": text, "special": True, **flags}
        for number, text in enumerate(special)
    ]
    vocabulary = {spelled[byte]: byte for byte in range(BYTES)}
    return {
        "version": "1.0", "added_tokens": added, "pre_tokenizer": of_bytes, "decoder": of_bytes,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }  # fmt: skip


def write_files(folder: Path, files: Mapping[str, object], shapes: Shapes) -> Path:
    """Make `folder` with JSON or text `files` and weights of these shapes."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    noise = random.Random(7)
    header: dict[str, object] = {}
    data = bytearray()
    for name, shape in shapes.items():
        start = len(data)
        data += _bfloat16(noise, math.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, len(data)]}
    head = json.dumps(header).encode()
    weights = len(head).to_bytes(8, "little") + head + data
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _bfloat16(noise: random.Random, count: int) -> bytes:
    """The upper half of each number's bits."""
    halves = array("H", array("f", (noise.gauss(0, 0.2) for _ in range(count))).tobytes())
    return halves[1::2].tobytes()
