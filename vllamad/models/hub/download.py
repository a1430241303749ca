"""Downloads the files of a repository into the cache: several at once, each verified.

    blobs/DIGEST             a complete file with that digest
    blobs/DIGEST.incomplete  the first part of one: the next download continues at its end
    snapshots/COMMIT/NAME    a link to its blob

The layout is that of a Hugging Face cache. Knows no hub: the function that fetches is an argument.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vllamad.errors import HostProblem
from vllamad.models.hub.file_selection import RemoteFile
from vllamad.models.store.manifests import StoredFile
from vllamad.protocol.control import Progress

AT_ONCE = 8  # files, as huggingface_hub does; for small files latency dominates
REPORT_INTERVAL = 0.1  # seconds between two progress reports of one file
_CHUNK = 1 << 20
_WRITE_BACK = 8 << 20

Report = Callable[[Progress], None]
CountBytes = Callable[[int], None]


class DownloadInterrupted(HostProblem):
    """The download broke off; the files fetched so far are kept for the next try."""


class PartialFile:
    """A file that is hashed as it is written; the part of `BinaryIO` that a download uses.

    Bytes of an earlier download are hashed first; `start` is their number.
    """

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self._git_header = b"" if file.large else b"blob %d\0" % file.size
        self._remote = file
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        if os.fstat(self._file.fileno()).st_size > file.size:
            self._file.truncate(0)
        self._hash_again()
        self.start = self._file.tell()

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._remote.size:
            raise size_mismatch(self._remote)
        for digest in self._digests:
            digest.update(data)
        written = self._file.write(data)
        self._start_writeback()
        return written

    def _start_writeback(self) -> None:
        """Start writing to the disk during the download: at its end fsync waits for all bytes."""
        if (here := self._file.tell()) - self._written_back >= _WRITE_BACK:
            self._file.flush()
            # Starts to write dirty pages without waiting; they stay cached until written.
            os.posix_fadvise(
                self._file.fileno(),
                self._written_back,
                here - self._written_back,
                os.POSIX_FADV_DONTNEED,
            )
            self._written_back = here

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def truncate(self) -> int:
        """Cut the file at the current offset: the hub restarts the download."""
        size = self._file.truncate()
        self._hash_again()
        return size

    def digest(self) -> str:
        """The SHA-256 of a large file, the git blob hash of a small one."""
        return self._digests[-1].hexdigest()

    def sha256(self) -> str:
        return self._digests[0].hexdigest()

    def close(self) -> None:
        self._file.close()

    def _hash_again(self) -> None:
        self._digests = [hashlib.sha256()]
        if self._git_header:
            self._digests.append(hashlib.sha1(self._git_header, usedforsecurity=False))
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            for digest in self._digests:
                digest.update(data)
        self._written_back = self._file.tell()


def size_mismatch(file: RemoteFile) -> HostProblem:
    """The error for a file whose size differs from the announced one."""
    return HostProblem(
        f"cannot pull {file.path}: its size differs from the {file.size} bytes the hub announced",
        hint="try again; if it fails again, the file on the hub is damaged",
    )


FetchFile = Callable[[RemoteFile, PartialFile, CountBytes], None]


class RepositoryDownload:
    """The download of one commit's files into the folder of its repository."""

    def __init__(self, repository: Path, commit: str, fetch: FetchFile, report: Report) -> None:
        self._blobs = repository / "blobs"
        self._snapshot = repository / "snapshots" / commit
        self._fetch = fetch
        self.report = report
        self._report_lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}  # by digest: two names may have one content
        self._reported: dict[str, int] = {}  # bytes, by digest
        self._last_small = 0.0  # when the name of a small file was reported last
        self._over = False
        self._folder_lock = threading.Lock()  # held to make or rename a file: see `run`

    def missing(self, file: RemoteFile) -> int:
        """The number of bytes of `file` still to download."""
        return file.size - self._size(file)

    def keep_only(self, files: Iterable[RemoteFile]) -> None:
        """Remove partial files of an earlier download that are not in `files`."""
        parts = {self._part(file) for file in files}
        for part in self._blobs.glob("*.incomplete"):
            if part not in parts:
                part.unlink()

    def report_sizes(self, files: Iterable[RemoteFile]) -> None:
        """Report how many bytes of each file are on disk, whichever process downloads them."""
        for file in files:
            self._report_bytes(file, self._size(file))

    def run(self, files: Sequence[RemoteFile]) -> tuple[StoredFile, ...]:
        """Download all files, in the order given. Raises the error of the first that failed.

        The threads of the others are then abandoned, since the process ends soon; they make no
        file or link any more, so the folder may be removed.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.report_sizes(files)
        pool = ThreadPoolExecutor(max_workers=AT_ONCE)
        try:
            futures = [pool.submit(self._store, file) for file in files]
            return self._results(futures)
        finally:
            with self._folder_lock:
                self._over = True
            pool.shutdown(wait=False, cancel_futures=True)

    def _results(self, futures: Sequence[Future[StoredFile]]) -> tuple[StoredFile, ...]:
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done() and (problem := future.exception()):
                raise problem
        return tuple(future.result() for future in futures)

    def _store(self, file: RemoteFile) -> StoredFile:
        if not file.large:
            self._report_name(file)
        blob = self._blobs / file.digest
        with self._locks.setdefault(file.digest, threading.Lock()):
            sha256 = self._existing(file) or self._download_twice(file)
        link = self._snapshot / file.path
        with self._changing_folder():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        self._report_bytes(file, file.size)
        return StoredFile(path=file.path, size=file.size, sha256=sha256)

    def _report_name(self, file: RemoteFile) -> None:
        """Report the name of a small file, at most one in each interval: there may be thousands."""
        if time.monotonic() - self._last_small >= REPORT_INTERVAL:
            self._last_small = time.monotonic()
            self._send(Progress(status=f"pulling {file.path}"))

    def _existing(self, file: RemoteFile) -> str:
        """The SHA-256 of a blob on disk, or "". A blob is given its name once it is verified."""
        if not (self._blobs / file.digest).exists() or self.missing(file):
            return ""
        if file.large:
            return file.digest
        return hashlib.sha256((self._blobs / file.digest).read_bytes()).hexdigest()

    def _download_twice(self, file: RemoteFile) -> str:
        try:
            return self._download(file)
        except DigestMismatch:  # one may be an error of the network, two are the hub's
            return self._download(file)

    def _download(self, file: RemoteFile) -> str:
        part = self._part(file)
        with self._changing_folder():
            partial = PartialFile(part, file)
        try:
            if partial.start < file.size:
                self._fetch(file, partial, _ByteCounter(partial.start, file, self._count).add)
        finally:
            partial.close()
        if (actual := partial.digest()) != file.digest:
            with self._changing_folder():
                part.unlink()
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: want {file.digest}, got {actual}",
                hint=f"the hub sent {file.path} with a wrong digest, twice; try again later",
            )
        with self._changing_folder():
            part.replace(self._blobs / file.digest)
        return partial.sha256()

    @contextmanager
    def _changing_folder(self) -> Generator[None]:
        """Hold the lock to change the folder. Raises once `run` is over and may have removed it."""
        with self._folder_lock:
            self._refuse_if_over()
            yield

    def _refuse_if_over(self) -> None:
        if self._over:
            raise DownloadInterrupted("cannot continue: the download of another file failed")

    def _count(self, file: RemoteFile, completed: int) -> None:
        self._refuse_if_over()
        self._report_bytes(file, completed)

    def _report_bytes(self, file: RemoteFile, completed: int) -> None:
        if file.large:  # small files are kilobytes, and the hub gives no SHA-256 of them
            # A restarted download never reports fewer bytes than before.
            completed = max(completed, self._reported.get(file.digest, 0))
            self._reported[file.digest] = completed
            self._send(
                Progress(
                    status=f"pulling {file.digest[:12]}",
                    digest=f"sha256:{file.digest}",
                    total=file.size,
                    completed=completed,
                )
            )

    def _send(self, progress: Progress) -> None:
        with self._report_lock:
            self.report(progress)

    def _size(self, file: RemoteFile) -> int:
        for path in (self._blobs / file.digest, self._part(file)):
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            return size if size <= file.size else 0
        return 0

    def _part(self, file: RemoteFile) -> Path:
        return self._blobs / f"{file.digest}.incomplete"


class DigestMismatch(HostProblem):
    """The digest of a downloaded file differs from the announced one."""


class _ByteCounter:
    """Counts the bytes of one file and reports their sum, at most once in each interval."""

    def __init__(
        self, start: int, file: RemoteFile, report: Callable[[RemoteFile, int], None]
    ) -> None:
        self._file = file
        self._report = report
        self._completed = start
        self._last_report = time.monotonic()

    def add(self, count: int) -> None:
        self._completed += count  # negative where the hub restarts the download
        if time.monotonic() - self._last_report >= REPORT_INTERVAL:
            self._last_report = time.monotonic()
            self._report(self._file, min(self._completed, self._file.size))
