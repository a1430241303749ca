"""Reads inline images: base64 as Go reads it, and the media type by the first bytes.

Never decodes pixels and never fetches a URL.
"""

from __future__ import annotations

import base64
import re

from vllamad.errors import BadInput
from vllamad.translate.content.image_size import MAX_PIXELS, pixels
from vllamad.translate.go.fields import misfit
from vllamad.translate.go.struct_reader import GoValue

MAX_IMAGE = 20 << 20  # bytes, decoded

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/\r\n]")
_LINE_ENDS = str.maketrans("", "", "\r\n")
_KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "audio/wav"),
    (re.compile(rb"ID3|\xff[\xe2-\xff]"), "audio/mp3"),
)


class Image(GoValue):
    """An inline image or sound: its media type and its base64, without line ends."""

    GO_TYPE = "api.ImageData"
    __slots__ = ("data", "media_type")

    def __init__(self, media_type: str, data: str) -> None:
        self.media_type = media_type
        self.data = data

    @classmethod
    def from_json(cls, value: object, where: str) -> Image:
        return read_image(value, where)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (
            (self.media_type, self.data) == (other.media_type, other.data)
        )


def read_image(value: object, where: str) -> Image:
    """Check one element of an `images` array. Raises BadInput with Go's text."""
    if not isinstance(value, str):
        raise misfit(value, where, "api.ImageData")
    data = value.translate(_LINE_ENDS) if "\n" in value or "\r" in value else value
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError:
        content = None
    # Python lets superfluous padding pass, Go does not.
    if content is None or len(data) % 4 or data.endswith("==="):
        raise BadInput(f"illegal base64 data at input byte {_fault(value)}")
    if len(content) > MAX_IMAGE:
        raise BadInput(f"cannot take an image of {len(content)} bytes, at most {MAX_IMAGE}")
    media_type = _media_type(content)
    if (count := pixels(content, media_type)) > MAX_PIXELS:
        raise BadInput(f"cannot take an image of {count} pixels, at most {MAX_PIXELS}")
    return Image(media_type, data)


def _media_type(content: bytes) -> str:
    """Return the media type of `content`; unknown bytes count as JPEG, as in Ollama."""
    return next((kind for magic, kind in _KINDS if magic.match(content)), "image/jpeg")


def _fault(value: str) -> int:
    """Find the byte that Go names: the first foreign one, else the end of a short group."""
    foreign = _NOT_BASE64.search(value)
    if foreign is None:
        return len(value) - len(value.translate(_LINE_ENDS)) % 4
    at = foreign.start()
    if value[at] != "=":
        return len(value[:at].encode())
    within = len(value[:at].translate(_LINE_ENDS)) % 4
    if within < 2:
        return at  # padding before two characters of a group
    rest = value[at + 1 :]
    after = len(value) - len(rest.lstrip("\r\n"))
    if within == 3:
        return after  # a byte after the padding
    if after == len(value):
        return len(value)  # the second "=" is missing
    if value[after] != "=":
        return after - 1
    return len(value) - len(value[after + 1 :].lstrip("\r\n"))
