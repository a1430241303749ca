"""Blobs: uploads that go straight to the disk, under what they hash to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, until
from tests.support.managed_daemon import NOBODY, digest_of, in_store

pytestmark = pytest.mark.integration


@pytest.mark.vector(57)
def test_57_blobs_are_stored_under_what_they_hash_to(managed: Daemon) -> None:
    content = b"a blob" * 1000
    path = f"/api/blobs/{digest_of(content)}"
    assert managed.http.head(path).status_code == 404
    first = managed.http.post(path, content=content)
    assert (first.status_code, first.content) == (201, b"")
    assert managed.http.head(path).status_code == 200
    again = managed.http.post(path, content=content)
    assert (again.status_code, again.content) == (200, b"")
    assert managed.http.get(path).headers["allow"] == "HEAD, POST"


@pytest.mark.parametrize(
    "digest", ["sha256:xyz", "sha256", "md5:" + "0" * 64, "sha256:" + "0" * 63, "..%2f..%2fx"]
)
@pytest.mark.vector(57)
def test_57_what_is_no_digest_is_refused(managed: Daemon, digest: str) -> None:
    answer = managed.http.post(f"/api/blobs/{digest}", content=b"x")
    assert answer.status_code in (400, 404)
    assert managed.http.head(f"/api/blobs/{digest}").status_code in (400, 404)
    if "%" not in digest:
        assert answer.json() == {"error": "invalid digest format"}


@pytest.mark.vector(57)
def test_57_other_bytes_than_announced_leave_nothing(managed: Daemon) -> None:
    answer = managed.http.post(f"/api/blobs/{NOBODY}", content=b"x")
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        f'digest mismatch, expected "{NOBODY}", got "{digest_of(b"x")}"'
    )
    assert managed.http.head(f"/api/blobs/{NOBODY}").status_code == 404
    assert in_store(managed, "blobs/.*") == []


def test_a_blob_larger_than_any_other_body_goes_straight_to_the_disk(managed: Daemon) -> None:
    piece = bytes(1 << 20)
    whole = hashlib.sha256()
    for _ in range(48):
        whole.update(piece)

    def pieces() -> Iterator[bytes]:
        for _ in range(48):
            yield piece

    before = peak_of(managed)
    answer = managed.http.post(f"/api/blobs/sha256:{whole.hexdigest()}", content=pieces())
    assert answer.status_code == 201
    assert peak_of(managed) - before < 24 << 20
    [path] = in_store(managed, f"blobs/sha256-{whole.hexdigest()}")
    assert path.stat().st_size == 48 << 20
    path.unlink()


def peak_of(managed: Daemon) -> int:
    """Most memory the gateway ever had, in bytes."""
    [gateway] = managed.gateways()
    status = Path(f"/proc/{gateway}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_client_that_leaves_in_the_middle_of_a_blob_leaves_nothing(managed: Daemon) -> None:
    stuck = threading.Event()

    def endless() -> Iterator[bytes]:
        while not stuck.is_set():
            yield bytes(1 << 16)
        raise ConnectionAbortedError

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(managed.http.post, f"/api/blobs/{NOBODY}", content=endless())
        until(lambda: in_store(managed, "blobs/.*"))
        stuck.set()
        with pytest.raises(ConnectionAbortedError):
            sent.result(60)
    until(lambda: in_store(managed, "blobs/.*") == [])
