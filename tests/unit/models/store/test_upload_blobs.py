"""Uploads: what is stored is what was announced, or nothing is."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from vllamad.errors import BadInput, HostProblem
from vllamad.models.store import upload_blobs
from vllamad.models.store.upload_blobs import BlobWriter, blob_path, remove_old_blobs


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def upload(models: Path, digest: str, *pieces: bytes) -> None:
    one = BlobWriter(models, digest)
    one.begin()
    try:
        for piece in pieces:
            one.write(piece)
        one.finish()
    finally:
        one.end()


def stored(models: Path) -> list[str]:
    return sorted(path.name for path in (models / "blobs").glob("*"))


def test_a_blob_is_stored_under_its_digest(tmp_path: Path) -> None:
    digest = digest_of(b"one two")
    upload(tmp_path, digest, b"one ", b"two")
    assert blob_path(tmp_path, digest).read_bytes() == b"one two"
    assert stored(tmp_path) == [digest.replace(":", "-")]


def test_an_empty_blob_is_one_too(tmp_path: Path) -> None:
    upload(tmp_path, digest_of(b""))
    assert blob_path(tmp_path, digest_of(b"")).read_bytes() == b""


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../x", "sha256:" + "g" * 64, "sha512:" + "0" * 64, "0" * 64,
     "sha256:" + "0" * 64 + "\n", "sha256/" + "0" * 64],
)  # fmt: skip
def test_no_path_is_made_of_what_is_no_digest(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadInput, match="invalid digest format"):
        blob_path(tmp_path, digest)


def test_other_bytes_than_announced_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="digest mismatch, expected"):
        upload(tmp_path, digest_of(b"a"), b"b")
    assert stored(tmp_path) == []


def test_a_blob_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_blobs, "BLOB_LIMIT", 3)
    with pytest.raises(BadInput, match="more than 3 bytes") as raised:
        upload(tmp_path, digest_of(b"abcd"), b"ab", b"cd")
    assert raised.value.status == 413
    assert stored(tmp_path) == []


def test_an_upload_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_blobs, "SPACE_RESERVE", 1 << 60)
    with pytest.raises(HostProblem, match="cannot store the blob: the disk has"):
        upload(tmp_path, digest_of(b"a"), b"a")
    assert stored(tmp_path) == []


def test_a_store_that_cannot_be_written_is_a_host_problem(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(HostProblem, match="cannot store the blob"):
        BlobWriter(tmp_path / "models", digest_of(b"a")).begin()


def test_a_sweep_takes_what_is_half_written_and_what_nobody_used_for_a_day(tmp_path: Path) -> None:
    old, new = digest_of(b"old"), digest_of(b"new")
    upload(tmp_path, old, b"old")
    upload(tmp_path, new, b"new")
    (tmp_path / "blobs" / ".sha256-part").write_text("half")
    yesterday = time.time() - 25 * 3600
    os.utime(blob_path(tmp_path, old), (yesterday, yesterday))
    remove_old_blobs(tmp_path)
    assert stored(tmp_path) == [new.replace(":", "-")]


def test_a_store_without_blobs_is_swept_too(tmp_path: Path) -> None:
    remove_old_blobs(tmp_path)


def test_the_blobs_of_an_ollama_server_are_left_alone(tmp_path: Path) -> None:
    upload(tmp_path, digest_of(b"weights"), b"weights")
    (blob,) = (tmp_path / "blobs").iterdir()
    os.utime(blob, (0, 0))
    manifest = tmp_path / "manifests/registry.ollama.ai/library/x/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"schemaVersion":2,"layers":[]}')
    remove_old_blobs(tmp_path)
    assert blob.exists()
    manifest.unlink()
    remove_old_blobs(tmp_path)
    assert not blob.exists()
