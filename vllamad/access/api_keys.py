"""API keys: reading the file they are kept in, and the check of one request.

Only digests are kept, so that neither a gateway's memory nor its settings hold a key. Knows no
path: the route says which access it takes. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from vllamad.config.settings import ApiKey
from vllamad.errors import NotAllowed, Unauthenticated

LEAST: Final = 16  # characters of a key: fewer can be guessed
INFER: Final = "infer"
MANAGE: Final = "manage"

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_KEY: Final = re.compile(r"[\x21-\x7e]+")


class Access(Enum):
    """What a route takes of a client, where keys exist."""

    OPEN = "open"  # no key
    INFER = INFER  # any key
    MANAGE = MANAGE  # a key that may change models


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read one key a line, `KEY` or `sha256:HEX`, optionally followed by `infer` or `manage`.

    Empty lines and those that start with `#` are comments; without a scope a key may manage.
    Raises ValueError naming the line, never the key.
    """
    lines = enumerate(text.splitlines(), 1)
    keys = [_read(number, line.split()) for number, line in lines if _holds_key(line)]
    if not keys:
        raise ValueError("there is no key in it")
    return tuple(keys)


def check_key(keys: Sequence[ApiKey], access: Access, *, authorization: str, api_key: str) -> None:
    """Check the key of one request: `Authorization: Bearer KEY` or `x-api-key: KEY`.

    Without configured keys every request passes. Raises Unauthenticated, and NotAllowed for an
    inference key on a route that takes MANAGE.
    """
    if not keys or access is Access.OPEN:
        return
    scheme, _, bearer = authorization.strip().partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else api_key.strip()
    digest = sha256(given.encode("utf-8", "surrogateescape")).hexdigest()
    # Every key is compared, so that the time taken does not tell which one came close.
    scopes = [key.scope for key in keys if compare_digest(key.digest, digest)]
    if not scopes:
        raise Unauthenticated(
            'cannot answer without a valid API key: send one as "Authorization: Bearer KEY"'
        )
    if access is not Access.INFER and MANAGE not in scopes:
        raise NotAllowed("cannot change models with this API key: it is for inference only")


def _holds_key(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _read(number: int, words: list[str]) -> ApiKey:
    key, *rest = words
    if rest not in ([], [INFER], [MANAGE]):
        raise ValueError(f"line {number}: after the key may stand infer or manage, nothing else")
    scope = rest[0] if rest else MANAGE
    if known := _DIGEST.fullmatch(key):
        return ApiKey(digest=known[1], scope=scope)
    if len(key) < LEAST or not _KEY.fullmatch(key):
        raise ValueError(
            f"line {number}: a key has at least {LEAST} characters, all of them visible ASCII"
        )
    return ApiKey(digest=sha256(key.encode()).hexdigest(), scope=scope)
