"""Finds the paths of images in a message, and reads the images."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from vllamad.errors import HostProblem

LIMIT = 20 << 20  # bytes of one image; base64 makes them a third more
KINDS = ("jpg", "jpeg", "png", "webp")
_PATH = re.compile(
    r"""(?<!\S)(?:'(?P<quoted>[^'\n]+)'|(?P<bare>(?:~|\.{1,2})?/(?:\\.|[^\s\\])+))""", re.ASCII
)


def take_images(text: str) -> tuple[str, list[str]]:
    """Return the text without the paths of existing images, and the images in base64.

    A path begins with /, ./, ../ or ~/; spaces in it are escaped, or all of it is in single
    quotes. Raises HostProblem for an image that cannot be read.
    """
    images: list[str] = []

    def take(match: re.Match[str]) -> str:
        path = _image(match)
        if path is None:
            return match[0]
        images.append(_read(path))
        return ""

    rest = _PATH.sub(take, text)
    return (rest.strip(), images) if images else (text, [])


def _image(match: re.Match[str]) -> Path | None:
    text = match["quoted"] or re.sub(r"\\(.)", r"\1", match["bare"])
    if text.rpartition(".")[2].lower() not in KINDS:
        return None
    try:
        path = Path(text).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a zero byte
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise HostProblem(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > LIMIT:
        raise HostProblem(f"cannot send {path}: it is over {LIMIT >> 20} MiB")
    return base64.b64encode(content).decode()
