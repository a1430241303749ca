"""Compressed bodies are read up to the limit; all other bytes are refused with 400."""

from __future__ import annotations

import gzip
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.content.compression import IDENTITY, unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK = {IDENTITY: bytes, "gzip": gzip.compress, "zstd": zstd.compress}


@given(st.binary(max_size=300), st.sampled_from(list(PACK)))
def test_what_was_packed_is_unpacked(body, encoding):
    assert unpacked(PACK[encoding](body), encoding, 300) == body


@accepts_some
@example(body=gzip.compress(b"a"), encoding="gzip")
@given(st.binary(), st.sampled_from(["gzip", "zstd"]))
def test_no_bytes_raise_anything_but_bad_input(body, encoding):
    with accepted_or_refused():
        unpacked(body, encoding, 100)


@given(st.integers(1, 40), st.sampled_from(["gzip", "zstd"]))
def test_a_body_cut_short_is_refused(cut, encoding):
    with pytest.raises(BadInput, match="failed to decompress request body"):
        unpacked(PACK[encoding](bytes(range(256)))[:-cut], encoding, 1000)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_one_byte_over_the_limit_is_refused_with_the_limit(encoding):
    packed = PACK[encoding](bytes(101))
    assert unpacked(packed, encoding, 101) == bytes(101)
    with pytest.raises(BadInput, match="larger than 100 bytes") as refused:
        unpacked(packed, encoding, 100)
    assert refused.value.status == 413


def test_a_window_that_would_take_more_memory_than_any_body_is_refused():
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 24}
    compressor = zstd.ZstdCompressor(options=options)
    packed = compressor.compress(b"x" * 100) + compressor.flush()  # of a size not told
    with pytest.raises(BadInput, match="failed to decompress request body"):
        unpacked(packed, "zstd", 1000)


def test_an_unknown_encoding_is_named():
    with pytest.raises(BadInput, match="encoded as br") as refused:
        unpacked(b"", "br", 100)
    assert refused.value.status == 415
