"""Brings the files of a repository into the cache: several at once, each verified as it comes.

    blobs/DIGEST             whole, and what its name says
    blobs/DIGEST.incomplete  the beginning of one: the next try goes on where it ends
    snapshots/COMMIT/NAME    a link to its blob

The layout is that of a Hugging Face cache. Knows no hub: how bytes are had is an argument.
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

AT_ONCE = 8  # files, as the hub's own library; small ones spend their time on the way
REPORT_INTERVAL = 0.1  # seconds between two lines about one file
_CHUNK = 1 << 20
_SEND_OFF = 8 << 20

Report = Callable[[Progress], None]
CountBytes = Callable[[int], None]


class DownloadInterrupted(HostProblem):
    """The hub could not be heard to the end: what is there already is worth keeping."""


class PartialFile:
    """A file that is hashed as it is written; the part of `BinaryIO` a download needs.

    What an earlier try left of it is read first. `start` is where to go on.
    """

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self._announced = b"" if file.large else b"blob %d\0" % file.size
        self._wanted = file
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        if os.fstat(self._file.fileno()).st_size > file.size:
            self._file.truncate(0)
        self._hash_again()
        self.start = self._file.tell()

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._wanted.size:
            raise size_mismatch(self._wanted)
        for digest in self._digests:
            digest.update(data)
        written = self._file.write(data)
        self._send_off()
        return written

    def _send_off(self) -> None:
        """Have it written to the disk meanwhile: at the end all of it is waited for."""
        if (here := self._file.tell()) - self._sent_off >= _SEND_OFF:
            self._file.flush()
            # It begins to write what is dirty, waits for nothing, and keeps it in memory.
            os.posix_fadvise(
                self._file.fileno(), self._sent_off, here - self._sent_off, os.POSIX_FADV_DONTNEED
            )
            self._sent_off = here

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def truncate(self) -> int:
        """Cut it off here: the hub begins anew."""
        size = self._file.truncate()
        self._hash_again()
        return size

    def digest(self) -> str:
        """SHA-256 of a large file, of another what git calls it."""
        return self._digests[-1].hexdigest()

    def sha256(self) -> str:
        return self._digests[0].hexdigest()

    def close(self) -> None:
        self._file.close()

    def _hash_again(self) -> None:
        self._digests = [hashlib.sha256()]
        if self._announced:
            self._digests.append(hashlib.sha1(self._announced, usedforsecurity=False))
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            for digest in self._digests:
                digest.update(data)
        self._sent_off = self._file.tell()


def size_mismatch(file: RemoteFile) -> HostProblem:
    """The hub said how many bytes there are, and then sent others."""
    return HostProblem(f"cannot pull {file.path}: it has another size than the hub announced")


FetchFile = Callable[[RemoteFile, PartialFile, CountBytes], None]


class RepositoryDownload:
    """One repository's folder while the files of one commit are brought into it."""

    def __init__(self, repository: Path, commit: str, fetch: FetchFile, report: Report) -> None:
        self._blobs = repository / "blobs"
        self._place = repository / "snapshots" / commit
        self._fetch = fetch
        self.report = report
        self._telling = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}  # by digest: two names may have one content
        self._told: dict[str, int] = {}  # bytes, by digest
        self._named = 0.0
        self._over = False
        self._making = threading.Lock()  # held to make or rename a file: see `run`

    def missing(self, file: RemoteFile) -> int:
        """How many bytes of it are still to come."""
        return file.size - self._size(file)

    def keep_only(self, files: Iterable[RemoteFile]) -> None:
        """Remove beginnings of what is no longer wanted."""
        wanted = {self._part(file) for file in files}
        for part in self._blobs.glob("*.incomplete"):
            if part not in wanted:
                part.unlink()

    def tell(self, files: Iterable[RemoteFile]) -> None:
        """Report how much there is of each, whoever brings it."""
        for file in files:
            self._tell(file, self._size(file))

    def run(self, files: Sequence[RemoteFile]) -> tuple[StoredFile, ...]:
        """Bring them all, in the order given. Raises what stopped the first that was stopped.

        The others are then abandoned where they are: this is for a process that ends with it. None
        of them makes a file or a link after that, so the folder may be removed.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        self.tell(files)
        pool = ThreadPoolExecutor(max_workers=AT_ONCE)
        try:
            futures = [pool.submit(self._bring, file) for file in files]
            return self._results(futures)
        finally:
            with self._making:
                self._over = True
            pool.shutdown(wait=False, cancel_futures=True)

    def _results(self, futures: Sequence[Future[StoredFile]]) -> tuple[StoredFile, ...]:
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done() and (problem := future.exception()):
                raise problem
        return tuple(future.result() for future in futures)

    def _bring(self, file: RemoteFile) -> StoredFile:
        if not file.large:
            self._name(file)
        blob = self._blobs / file.digest
        with self._locks.setdefault(file.digest, threading.Lock()):
            sha256 = self._have(file) or self._download_twice(file)
        link = self._place / file.path
        with self._in_time():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        self._tell(file, file.size)
        return StoredFile(path=file.path, size=file.size, sha256=sha256)

    def _name(self, file: RemoteFile) -> None:
        """Small files may be thousands: the name of one now and then says that it goes on."""
        if time.monotonic() - self._named >= REPORT_INTERVAL:
            self._named = time.monotonic()
            self._say(Progress(status=f"pulling {file.path}"))

    def _have(self, file: RemoteFile) -> str:
        """The SHA-256 of a blob that is there, or nothing. It got its name by being verified."""
        if not (self._blobs / file.digest).exists() or self.missing(file):
            return ""
        if file.large:
            return file.digest
        return hashlib.sha256((self._blobs / file.digest).read_bytes()).hexdigest()

    def _download_twice(self, file: RemoteFile) -> str:
        try:
            return self._download(file)
        except DigestMismatch:  # once may be the line; the same again is the hub
            return self._download(file)

    def _download(self, file: RemoteFile) -> str:
        part = self._part(file)
        with self._in_time():
            growing = PartialFile(part, file)
        try:
            if growing.start < file.size:
                self._fetch(file, growing, _Meter(growing.start, file, self._moved).moved)
        finally:
            growing.close()
        if (actual := growing.digest()) != file.digest:
            with self._in_time():
                part.unlink()
            raise DigestMismatch(
                f"digest mismatch, file must be downloaded again: want {file.digest}, got {actual}",
                hint=f"the hub sent {file.path} with other bytes than it announced, twice",
            )
        with self._in_time():
            part.replace(self._blobs / file.digest)
        return growing.sha256()

    @contextmanager
    def _in_time(self) -> Generator[None]:
        """Change the folder, unless it is over: whoever asked for it may be removing the folder."""
        with self._making:
            self._refuse_if_over()
            yield

    def _refuse_if_over(self) -> None:
        if self._over:
            raise DownloadInterrupted("another file could not be had")

    def _moved(self, file: RemoteFile, completed: int) -> None:
        self._refuse_if_over()
        self._tell(file, completed)

    def _tell(self, file: RemoteFile, completed: int) -> None:
        if file.large:  # the others are kilobytes, and the hub gives no SHA-256 of them
            # A file that is fetched anew is not told to shrink.
            completed = self._told[file.digest] = max(completed, self._told.get(file.digest, 0))
            self._say(
                Progress(
                    status=f"pulling {file.digest[:12]}",
                    digest=f"sha256:{file.digest}",
                    total=file.size,
                    completed=completed,
                )
            )

    def _say(self, progress: Progress) -> None:
        with self._telling:
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
    """What came is not what was announced."""


class _Meter:
    """Turns bytes as they come into a word now and then."""

    def __init__(
        self, start: int, file: RemoteFile, tell: Callable[[RemoteFile, int], None]
    ) -> None:
        self._file = file
        self._tell = tell
        self._completed = start
        self._told = time.monotonic()

    def moved(self, count: int) -> None:
        self._completed += count  # less than nothing, where the hub begins anew
        if time.monotonic() - self._told >= REPORT_INTERVAL:
            self._told = time.monotonic()
            self._tell(self._file, min(self._completed, self._file.size))
