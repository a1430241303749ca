"""Events are complete and read once, for any chunking."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import EngineRefused
from vllamad.translate.engine import sse
from vllamad.translate.engine.sse import EventReader


def read(*pieces: bytes) -> list[bytes]:
    reader = EventReader()
    return [payload for piece in pieces for payload in reader.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": keep-alive\n\n", []),
        (b": keep-alive\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 1\ndata: a\n\n", [b"a"]),
        (b"event: x\n\n", []),
        (b"\n\n\n\ndata: a\n\n\n", [b"a"]),
        (b"data:\n\n", [b""]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\n\n", [b"a", b"b"]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"", []),
    ],
)
def test_an_events_data_is_read(stream, payloads):
    assert read(stream) == payloads
    assert read(*(stream[i : i + 1] for i in range(len(stream)))) == payloads


LINES = st.lists(st.sampled_from([b"data: a", b"data:b\\", b": c", b"event: x", b""]))
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, ENDS, st.lists(st.integers(0, 100)))
def test_any_chunking_gives_the_same_events(stream_lines, end, cuts):
    stream = b"".join(line + end for line in stream_lines)
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert read(*pieces) == read(stream)
    # A CR at the end may be half of a CR LF, until the next line tells.
    assert read(stream, b":\n") == read(stream.replace(end, b"\n"), b":\n")


@given(st.lists(st.binary()))
def test_no_bytes_raise(pieces):
    read(*pieces)


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: a\n\ndata:\r" + b"x" * 100])
@pytest.mark.parametrize("step", [7, 1000])
def test_an_event_has_a_largest_size(stream, step, monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT", 64)
    with pytest.raises(EngineRefused):
        read(*(stream[i : i + step] for i in range(0, len(stream), step)))
