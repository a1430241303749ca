"""Bodies that their client compressed, on every kind of route, and those that are bombs."""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import pytest

from tests.support.api_requests import HI, post, refusal
from tests.support.daemon import Daemon

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.integration

PACK = {"zstd": zstd.compress, "gzip": gzip.compress}
packed_as = pytest.mark.parametrize("encoding", PACK)


def pack(encoding: str, body: Any) -> bytes:
    return PACK[encoding](json.dumps(body).encode())


@packed_as
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "test", "messages": HI, "stream": False}),
        ("/api/show", {"model": "test"}),
        ("/v1/chat/completions", {"model": "test", "messages": HI}),
        ("/v1/responses", {"model": "test", "input": "hi"}),
        ("/v1/messages", {"model": "test", "messages": HI, "max_tokens": 9}),
    ],
)
def test_a_compressed_body_is_read(plain: Daemon, encoding: str, path: str, body: Any) -> None:
    told = {"content-encoding": encoding.upper()}
    assert post(plain, path, pack(encoding, body), **told)[0] == 200


@packed_as
def test_what_cannot_be_decompressed_is_400_in_the_form_of_the_api(
    plain: Daemon, encoding: str
) -> None:
    told = {"content-encoding": encoding}
    text = "failed to decompress request body"
    assert post(plain, "/api/chat", b"{}", **told) == (400, refusal(text))
    status, answer = post(plain, "/v1/responses", pack(encoding, HI)[:-5], **told)
    assert (status, answer["error"]["message"]) == (400, text)
    assert answer["error"]["type"] == "invalid_request_error"


@packed_as
def test_a_bomb_is_413_with_the_limit(plain: Daemon, encoding: str) -> None:
    bomb = PACK[encoding](b" " * (33 << 20))
    status, answer = post(plain, "/api/chat", bomb, **{"content-encoding": encoding})
    assert status == 413
    assert "33554432" in answer["error"]


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd", "x" * 1000])
def test_other_encodings_are_415_by_name(plain: Daemon, encoding: str) -> None:
    status, answer = post(plain, "/api/chat", b"{}", **{"content-encoding": encoding})
    assert (status, answer) == (415, refusal(f"cannot read a body encoded as {encoding[:40]}"))


def test_a_blob_is_stored_as_it_is_or_not_at_all(plain: Daemon) -> None:
    path = f"/api/blobs/sha256:{'0' * 64}"
    assert post(plain, path, b"x", **{"content-encoding": "gzip"})[0] == 415
