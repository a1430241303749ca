"""Decompresses request bodies within a limit: a few bytes can stand for millions.

Knows nothing of the content of a body.
"""

from __future__ import annotations

import sys
import zlib
from typing import Final, Protocol

from vllamad.errors import BadInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IDENTITY: Final = "identity"
_WINDOW: Final = 23  # log2 of the memory for a zstd body, in bytes, besides the body
_ZLIB_GZIP: Final = 31  # the wbits of a gzip body with a window of any size


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body of at most `limit` bytes.

    Raises BadInput. Bytes after the end of the compressed data are ignored, as after JSON.
    """
    if encoding == IDENTITY:
        return body
    reader = _reader(encoding)
    try:
        content = reader.decompress(body, limit + 1)
    except (zlib.error, zstd.ZstdError) as error:
        raise BadInput("failed to decompress request body") from error
    if len(content) > limit:
        raise BadInput(
            f"the decompressed request body is larger than {limit} bytes (server.max_body)",
            status=413,
        )
    if not reader.eof:
        raise BadInput("failed to decompress request body")
    return content


def _reader(encoding: str) -> _Decompressor:
    if encoding == "gzip":
        return zlib.decompressobj(_ZLIB_GZIP)
    if encoding != "zstd":
        raise BadInput(f"cannot read a body encoded as {encoding[:40]}", status=415)
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW})
