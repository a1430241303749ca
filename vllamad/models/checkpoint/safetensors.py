"""Reads the tensors of a safetensors file from its header, and checks them against its size.

The header is untrusted: every number is bounded before it is used. Never reads weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec

from vllamad.errors import BadInput
from vllamad.models.store.safe_files import open_regular

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
TENSORS_LIMIT = 200_000  # in one file; the largest models have about 90 000 in all their files

# Bits of one element; other types are refused.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Tensor(msgspec.Struct, frozen=True):
    """One tensor's entry; `data_offsets` are bytes from the end of the header."""

    dtype: str
    shape: Annotated[tuple[_Natural, ...], msgspec.Meta(max_length=16)]
    data_offsets: tuple[_Natural, _Natural]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]


_headers = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensors = msgspec.json.Decoder(Tensor)


def read_header(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file by name.

    Raises BadInput for an invalid header, or one that does not match the file's size; HostProblem
    where the file cannot be read.
    """
    with open_regular(path) as (file, size):
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise BadInput(f"cannot use {path.name}: its header does not fit its {size} bytes")
        header = file.read(length)
    try:
        return parse_header(header, size - 8 - length)
    except BadInput as error:
        raise BadInput(f"cannot use {path.name}: {error.message}") from error


def parse_header(header: bytes, data_size: int) -> dict[str, Tensor]:
    """Decode a header for `data_size` bytes of tensors. Raises BadInput."""
    # Counted before decoding, since a decoded entry takes a hundred times its bytes.
    if header.count(b'"data_offsets"') > TENSORS_LIMIT:
        raise BadInput(f"its header names more than {TENSORS_LIMIT} tensors")
    try:
        entries = _headers.decode(header)
        entries.pop("__metadata__", None)
        tensors = {name: _tensors.decode(raw) for name, raw in entries.items()}
    except (ValueError, RecursionError) as error:
        raise BadInput("its header is not valid") from error
    _check_extents(tensors, data_size)
    return tensors


def _check_extents(tensors: dict[str, Tensor], data_size: int) -> None:
    """Check that tensors lie end to end: no overlap, no hole, nothing past the end."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        bits = BITS.get(tensor.dtype)
        if bits is None:
            raise BadInput(f"tensor {name[:80]!r} has the unknown type {tensor.dtype[:20]!r}")
        if tensor.data_offsets[0] != end or tensor.size * 8 != tensor.elements * bits:
            raise BadInput(f"tensor {name[:80]!r} does not lie where its shape says")
        end = tensor.data_offsets[1]
    if end != data_size:
        raise BadInput(f"its tensors fill {end} of {data_size} bytes")
