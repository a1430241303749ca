"""The chunk reader against h11, on any cuts, and against broken framing."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.http.chunked import BodyReader, ChunkReader, PlainReader

chunks = st.lists(st.binary(min_size=1, max_size=300), max_size=12)
cuts = st.lists(st.integers(min_value=1, max_value=40), max_size=60)
extensions = st.sampled_from([b"", b";a=b", b';q="x" '])


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def read(reader: BodyReader, pieces: list[bytes]) -> bytes:
    return b"".join(reader.feed(piece) for piece in pieces)


def by_h11(body: bytes) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n" + body)
    payload = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
    return payload


@given(chunks, extensions, st.booleans(), cuts)
def test_any_cut_of_the_same_body_gives_what_h11_reads(
    parts: list[bytes], extension: bytes, trailer: bool, sizes: list[int]
) -> None:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    body += b"0\r\n" + (b"x-note: 1\r\n" if trailer else b"") + b"\r\n"
    reader = ChunkReader()
    assert read(reader, cut(body, sizes)) == by_h11(body) == b"".join(parts)
    assert reader.done


@given(chunks.filter(bool), st.data())
def test_a_body_that_is_cut_short_is_never_done(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    reader = ChunkReader()
    reader.feed(body[: data.draw(st.integers(0, len(body) - 1))])
    assert not reader.done


def test_what_one_read_brought_comes_out_at_once() -> None:
    assert ChunkReader().feed(b"1\r\na\r\n2\r\nbc\r\n3\r\nd") == b"abcd"


@pytest.mark.parametrize(
    "broken",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"\r\n",
        b"fffffffff\r\n",
        b"2\r\nabX\n",
        b"2\r\nab\rX",
        b"2\r\nabcd",
        b"1" * 2000,
        b"1;" + b"e" * 2000 + b"\r\n",
        b"0\r\n" + b"a: b\r\n" * 9000,
    ],
)
@pytest.mark.parametrize("size", [1, 10_000_000])
def test_broken_framing_is_refused(broken: bytes, size: int) -> None:
    reader = ChunkReader()
    pieces = [broken[at : at + size] for at in range(0, len(broken), size)]
    with pytest.raises(ValueError, match=r"chunk|trailers"):
        read(reader, pieces)


@given(st.binary(max_size=200), st.integers(0, 200), cuts)
def test_a_counted_body_ends_at_its_count(data: bytes, length: int, sizes: list[int]) -> None:
    reader = PlainReader(length)
    assert read(reader, cut(data, sizes)) == data[:length]
    assert reader.done == (len(data) >= length)


def test_a_body_up_to_the_end_of_the_connection_is_never_done() -> None:
    reader = PlainReader(None)
    assert read(reader, [b"a", b"b"]) == b"ab"
    assert not reader.done
