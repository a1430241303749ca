"""Secrets: API keys and the hub's token, from a credential or a file.

systemd puts credentials in $CREDENTIALS_DIRECTORY (systemd.exec(5), LoadCredential=); a file named
in the configuration wins over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vllamad.access.api_keys import parse_keys
from vllamad.config.settings import ApiKey

LIMIT = 64 << 10  # bytes of a file

_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")


def read_api_keys(file: str, environ: Mapping[str, str]) -> tuple[ApiKey, ...]:
    """The keys clients may use, none if there is no file. Raises ValueError with the reason."""
    place = _place(file, "api_keys", environ)
    if place is None:
        return ()
    text = _read(place)
    try:
        return parse_keys(text)
    except ValueError as fault:
        raise ValueError(f"cannot use {place}: {fault}") from None


def read_hub_token(file: str, environ: Mapping[str, str]) -> str:
    """The token for the hub, empty if there is no file. Raises ValueError with the reason."""
    place = _place(file, "hf_token", environ)
    if place is None:
        return ""
    token = _read(place).strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"cannot use {place}: a token is one line of visible ASCII")
    return token


def _place(file: str, credential: str, environ: Mapping[str, str]) -> Path | None:
    if file:
        return Path(file)
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    place = Path(folder) / credential
    return place if folder and place.exists() else None


def _read(place: Path) -> str:
    try:
        with place.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise ValueError(f"cannot read {place}: {error.strerror}") from error
    if len(data) > LIMIT:
        raise ValueError(f"cannot use {place}: it is larger than {LIMIT} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"cannot use {place}: it is not UTF-8") from None
