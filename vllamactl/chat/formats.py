"""What `--format` and `/set format` mean: JSON, or a schema, in place or in a file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vllamad.errors import BadInput, HostProblem

LIMIT = 1 << 20  # bytes of a schema


def read_format(text: str) -> object:
    """ "json", or the schema that `text` is or that the file of that name holds.

    Raises BadInput for what is neither, HostProblem where the file cannot be read.
    """
    if text == "json":
        return text
    inline = text.lstrip().startswith("{")
    source = text if inline else _content(text)
    what = "the format" if inline else text
    try:
        schema = msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"cannot use {what}: {error}") from error
    if not isinstance(schema, dict):
        raise BadInput(f"cannot use {what}: a JSON schema is an object")
    return schema  # pyright: ignore[reportUnknownVariableType] - of any keys


def _content(name: str) -> bytes:
    try:
        with Path(os.path.expanduser(name)).open("rb") as file:  # as it is, where there is no home
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise HostProblem(
            f"cannot read {name}: {(error.strerror or str(error)).lower()}",
            hint='a format is "json", a JSON schema, or a file that holds one',
        ) from error
    if len(content) > LIMIT:
        raise BadInput(f"cannot use {name}: a schema has at most {LIMIT} bytes")
    return content
