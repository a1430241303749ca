"""Reads the size of an image from its header; decodes no pixels.

A few bytes can stand for gigabytes of pixels in memory.
"""

from __future__ import annotations

import struct

MAX_PIXELS = 1 << 26  # an image of a camera with 67 megapixels

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length


def pixels(content: bytes, media_type: str) -> int:
    """Return width times height of a PNG, JPEG, GIF or WebP; 0 if its header has none."""
    try:
        width, height = _READERS[media_type](content)
    except (struct.error, KeyError, IndexError):
        return 0
    return width * height


def _png(content: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", content, 16)


def _gif(content: bytes) -> tuple[int, int]:
    return struct.unpack_from("<HH", content, 6)


def _jpeg(content: bytes) -> tuple[int, int]:
    """Read marker after marker, to the start of the frame."""
    at = 2
    while True:
        while content[at] == 0xFF:  # padding before a marker
            at += 1
        marker = content[at]
        at += 1
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content, at + 3)
            return width, height
        if marker not in _BARE:
            at += max(2, struct.unpack_from(">H", content, at)[0])


def _webp(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        low, middle = struct.unpack_from("<HB", content, 24), struct.unpack_from("<HB", content, 27)
        return (low[0] | low[1] << 16) + 1, (middle[0] | middle[1] << 16) + 1
    if kind == b"VP8L":
        bits: int = struct.unpack_from("<I", content, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


_READERS = {"image/png": _png, "image/gif": _gif, "image/jpeg": _jpeg, "image/webp": _webp}
