"""Images are base64 as Go takes it, and named by their first bytes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.image_headers import PNG
from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.errors import BadInput
from vllamad.translate.content import images
from vllamad.translate.content.images import Image, read_image


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def refusal_of(value: object) -> str:
    with pytest.raises(BadInput) as refused:
        read_image(value, "GenerateRequest.images")
    return refused.value.message


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\n\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\n\0\0\0WAVEfmt ", "audio/wav"),
        (b"ID3\x04", "audio/mp3"),
        (b"\xff\xfb\x90", "audio/mp3"),
        (b"what is this", "image/jpeg"),
        (b"", "image/jpeg"),
    ],
)
def test_the_kind_is_read_from_the_bytes(content, media_type):
    assert read_image(encoded(content), "x") == Image(media_type, encoded(content))


def test_line_ends_inside_are_dropped():
    assert read_image("aG\r\nk=\n", "x").data == "aGk="


@pytest.mark.parametrize(
    ("value", "byte"),
    [
        ("data:image/png;base64,aGk=", 4),
        ("aG_k", 2),
        ("é", 0),
        ("aGé=", 2),
        ("aGk", 0),
        ("aGkaGkx", 4),
        ("a\nGk", 1),
        ("=aGk", 0),
        ("a===", 1),
        ("aG=", 3),
        ("aG=k", 2),
        ("aG=\nk", 3),
        ("aG==a", 4),
        ("aG=\n=\na", 6),
        ("aGk=aGk=", 4),
        ("aGk=\n=", 5),
    ],
)
def test_bad_base64_names_the_byte_go_names(value, byte):
    assert refusal_of(value) == f"illegal base64 data at input byte {byte}"


def test_what_is_no_string_is_no_image():
    assert refusal_of(1) == (
        "json: cannot unmarshal number into Go struct field GenerateRequest.images "
        "of type api.ImageData"
    )


def test_an_image_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(images, "MAX_IMAGE", 10)
    assert read_image(encoded(b"x" * 10), "x")
    assert refusal_of(encoded(b"x" * 11)) == "cannot take an image of 11 bytes, at most 10"


def test_an_image_has_a_largest_number_of_pixels():
    huge = PNG + b"\0" * 16
    assert (
        refusal_of(encoded(huge)) == "cannot take an image of 3000000000 pixels, at most 67108864"
    )


@accepts_some
@example(text="iVBORw0KGgo=")
@given(st.text(alphabet="aZ0+/=\r\n-é"))
def test_text_is_either_what_it_encodes_or_refused_at_a_byte(text):
    byte = 0
    with accepted_or_refused():
        try:
            image = read_image(text, "x")
        except BadInput as refused:
            byte = int(refused.message.rpartition(" ")[2])
            raise
        # Before the padding, up to four bits of the last digit mean nothing, to Go either.
        assert encoded(base64.b64decode(image.data))[:-3] == image.data[:-3]
    assert 0 <= byte <= len(text.encode())
