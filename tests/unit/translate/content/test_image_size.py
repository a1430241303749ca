"""The size of an image is read from its header alone."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.image_headers import PNG
from vllamad.translate.content.image_size import pixels

GIF = b"GIF89a" + struct.pack("<HH", 300, 200)
FRAME = struct.pack(">BHHH", 8, 200, 300, 3)
JFIF = b"\xff\xd8\xff\xe0\0\x04\0\0"
JPEG = JFIF + b"\xff\xc2\0\x11" + FRAME
VP8 = b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 4 + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300, 200)
VP8L = b"RIFF\0\0\0\0WEBPVP8L" + b"\0" * 4 + b"\x2f" + struct.pack("<I", 299 | 199 << 14)
VP8X = b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + b"\x2b\x01\0" + b"\xc7\0\0"


@pytest.mark.parametrize(
    ("content", "media_type", "count"),
    [
        (PNG, "image/png", 3_000_000_000),
        (GIF, "image/gif", 60_000),
        (JPEG, "image/jpeg", 60_000),
        (JFIF + b"\xff\xff\xff\xc4\0\x04\0\0\xff\xc0\0\x11" + FRAME, "image/jpeg", 60_000),
        (b"\xff\xd8\xff\xd0" + JPEG[2:], "image/jpeg", 60_000),
        (VP8, "image/webp", 60_000),
        (VP8L, "image/webp", 60_000),
        (VP8X, "image/webp", 60_000),
        (PNG[:20], "image/png", 0),
        (JFIF, "image/jpeg", 0),
        (b"what is this", "image/jpeg", 0),
        (b"ID3", "audio/mp3", 0),
    ],
)
def test_the_header_says_how_many_pixels(content, media_type, count):
    assert pixels(content, media_type) == count


@given(st.binary(), st.sampled_from([PNG, GIF, JPEG, VP8, VP8L, VP8X]), st.integers(0, 40))
def test_no_bytes_hang_or_raise(more, header, cut):
    for media_type in ("image/png", "image/gif", "image/jpeg", "image/webp"):
        assert pixels(header[:cut] + more, media_type) >= 0
