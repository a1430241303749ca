"""Which API key may do what: the file they are kept in, and the judgement of one request.

Only digests are kept, so that neither a gateway's memory nor its settings hold a key. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from vllamad.config.settings import ApiKey
from vllamad.errors import NotAllowed, Unauthenticated

LEAST: Final = 16  # characters of a key: fewer can be guessed
INFER: Final = "infer"
MANAGE: Final = "manage"

_OPEN: Final = frozenset({"/", "/api/version"})
_MANAGING: Final = ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete")
_UPLOADS: Final = "/api/blobs/"
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_KEY: Final = re.compile(r"[\x21-\x7e]+")


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read one key a line, `KEY` or `sha256:HEX`, and behind it perhaps `infer` or `manage`.

    Empty lines and those that start with `#` are comments; without a word a key may do all.
    Raises ValueError naming the line, never the key.
    """
    lines = enumerate(text.splitlines(), 1)
    found = [_read(number, line.split()) for number, line in lines if _says_something(line)]
    if not found:
        raise ValueError("there is no key in it")
    return tuple(found)


def admit(
    keys: Sequence[ApiKey], *, method: str, path: str, authorization: str, api_key: str
) -> None:
    """Let a request pass, by `Authorization: Bearer KEY` or `x-api-key: KEY`.

    Without keys everybody may. Raises Unauthenticated, and NotAllowed for a key that may not.
    """
    if not keys or path in _OPEN:
        return
    scheme, _, bearer = authorization.strip().partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else api_key.strip()
    digest = sha256(given.encode("utf-8", "surrogateescape")).hexdigest()
    # Every key is looked at: how long it takes tells nothing of which one came close.
    scopes = [key.scope for key in keys if compare_digest(key.digest, digest)]
    if not scopes:
        raise Unauthenticated(
            'cannot answer without a valid API key: send one as "Authorization: Bearer KEY"'
        )
    if MANAGE not in scopes and _manages(method, path):
        raise NotAllowed("cannot change models with this API key: it is for inference only")


def _manages(method: str, path: str) -> bool:
    return path.rstrip("/") in _MANAGING or (method == "POST" and path.startswith(_UPLOADS))


def _says_something(line: str) -> bool:
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
