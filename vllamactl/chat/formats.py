"""Reads the value of `--format` and `/set format`: JSON, or a schema, inline or in a file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vllamad.errors import BadInput, HostProblem

LIMIT = 1 << 20  # bytes of a schema


def read_format(text: str) -> object:
    """Return "json", the schema in `text`, or the schema in the file of that name.

    Raises BadInput for other text, HostProblem if the file cannot be read.
    """
    if text == "json":
        return text
    inline = text.lstrip().startswith("{")
    source = text if inline else _content(text)
    label = "the format" if inline else text
    try:
        schema = msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"cannot use {label}: {error}") from error
    if not isinstance(schema, dict):
        raise BadInput(f"cannot use {label}: a JSON schema is an object")
    return schema  # pyright: ignore[reportUnknownVariableType] - any keys


def _content(name: str) -> bytes:
    try:
        with Path(os.path.expanduser(name)).open("rb") as file:  # unchanged if there is no home
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise HostProblem(
            f"cannot read {name}: {(error.strerror or str(error)).lower()}",
            hint='a format is "json", a JSON schema, or a file that holds one',
        ) from error
    if len(content) > LIMIT:
        raise BadInput(f"cannot use {name}: a schema has at most {LIMIT} bytes")
    return content
