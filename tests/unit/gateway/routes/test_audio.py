"""Forms are read and written without loss, and no bytes are more than a bad request."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.gateway.routes.audio import PIECE, AudioForm, read_form, write_form

FORM = "multipart/form-data; boundary=x"
NAMES = st.sampled_from(["model", "prompt", "timestamp_granularities[]"])


@given(st.lists(st.tuples(NAMES, st.text()), max_size=5), st.binary(max_size=200))
def test_what_was_written_is_read(fields, audio):
    boundary = "long-and-in-nothing"
    body = write_form(fields, audio, boundary)
    form = read_form(body, content_type=f"multipart/form-data; boundary={boundary}")
    assert form == AudioForm(tuple(fields), audio)


@pytest.mark.parametrize("size", [PIECE, 2 * PIECE])
@pytest.mark.parametrize("cut", range(0, 120, 7))
@pytest.mark.parametrize("content", [b"x", b"\r\n", b"\r\n--x-", b"\r"])
def test_it_does_not_matter_where_a_large_form_is_cut(size, cut, content):
    audio = (content * size)[: size - cut]
    body = write_form([("model", "m")], audio, "x-y")
    form = read_form(body, content_type="multipart/form-data; boundary=x-y")
    assert form == AudioForm((("model", "m"),), audio)


@accepts_some
@example(body=write_form([("model", "m")], b"sound", "x"))
@given(st.binary() | st.binary().map(lambda data: b"--x\r\n" + data + b"\r\n--x--"))
def test_no_bytes_raise_anything_but_bad_input(body):
    with accepted_or_refused():
        read_form(body, content_type=FORM)


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data"])
def test_what_is_no_form_is_refused(kind):
    with pytest.raises(BadInput, match="isn't multipart/form-data"):
        read_form(b"", content_type=kind)


def test_a_form_has_so_many_parts_at_most():
    body = write_form([("model", "m")] * 100, b"", "x")
    with pytest.raises(BadInput, match="more than 64 parts"):
        read_form(body, content_type=FORM)


def test_a_value_is_the_first_of_its_name():
    assert AudioForm((("a", "1"), ("b", "2"), ("a", "3")), None).value("a") == "1"
    assert AudioForm((), None).value("a") == ""
