"""Headers: what is read, and that no number in one is believed before it is checked."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.checkpoints import header_of, write_safetensors
from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput, HostProblem
from vllamad.models.checkpoint.safetensors import parse_header, read_header

GOOD = {"a": ("BF16", (2, 3)), "b": ("F32", (4,)), "empty": ("F32", (0, 7)), "s": ("U8", ())}


def test_a_header_gives_every_tensor_and_no_metadata(tmp_path):
    write_safetensors(tmp_path / "m.safetensors", GOOD)
    tensors = read_header(tmp_path / "m.safetensors")
    assert {name: (t.dtype, t.shape, t.size) for name, t in tensors.items()} == {
        "a": ("BF16", (2, 3), 12),
        "b": ("F32", (4,), 16),
        "empty": ("F32", (0, 7), 0),
        "s": ("U8", (), 1),
    }


@pytest.mark.parametrize("length", [2**62, 2**64 - 1, 100_000_001, 50])
def test_a_header_longer_than_the_file_is_refused(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(BadInput, match="its header does not fit its 10 bytes"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\2\0\0"])
def test_a_file_shorter_than_its_length_field_is_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_header(path)


def changed(name: str, **fields: object) -> bytes:
    entries, _ = header_of(GOOD)
    entry = entries[name]
    assert isinstance(entry, dict)
    return json.dumps(entries | {name: entry | fields}).encode()


@pytest.mark.parametrize(
    "header",
    [
        changed("a", shape=[2, -3]),
        changed("a", shape=[2**62, 2**62]),
        changed("a", shape=[1] * 17),
        changed("a", data_offsets=[0, 2**63]),
        changed("a", data_offsets=[12, 0]),
        changed("a", data_offsets=[-12, 0]),
        changed("b", data_offsets=[0, 16]),
        changed("b", data_offsets=[16, 32]),
        changed("b", dtype="F31"),
        changed("b", dtype=7),
        b"",
        b"[]",
        b"{" * 100_000,
        b'{"a":' * 100_000,
        b'{"\xff":{}}',
        b'{"a":{"dtype":"\xff","shape":[],"data_offsets":[0,0]}}',
        b'{"a":{}}',
    ],
    ids=range(17),
)
def test_a_header_that_does_not_describe_its_bytes_is_refused(header):
    with pytest.raises(BadInput):
        parse_header(header, header_of(GOOD)[1])


@pytest.mark.parametrize("extra", [-1, 1])
def test_tensors_must_fill_the_file_exactly(extra):
    entries, size = header_of(GOOD)
    with pytest.raises(BadInput, match="its tensors fill 29 of"):
        parse_header(json.dumps(entries).encode(), size + extra)


def test_a_header_with_too_many_tensors_is_refused_before_it_is_decoded():
    header = b"{" + b",".join([b'"a":{"data_offsets"'] * 200_001)
    with pytest.raises(BadInput, match="more than 200000 tensors"):
        parse_header(header, 0)


def test_a_refused_file_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(BadInput, match=r"cannot use m.safetensors: its header is not valid"):
        read_header(path)


@accepts_some
@example(data=b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}')
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_bad_input(data):
    with accepted_or_refused():
        parse_header(data, 0)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(HostProblem, match="not a regular file"):
        read_header(tmp_path / "m.safetensors")


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/nonexistent"])
def test_devices_folders_and_missing_files_are_refused(tmp_path, path):
    (tmp_path / "m.safetensors").symlink_to(path)
    with pytest.raises(HostProblem):
        read_header(tmp_path / "m.safetensors")
