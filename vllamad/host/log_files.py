"""Follows the output file of a worker: keeps its tail, passes on its lines, bounds its size.

The worker has the file open for append and is never blocked; the file is rotated in place. The
meaning of the lines is not known here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from vllamad.errors import HostProblem

TAIL = 64 << 10  # bytes kept in memory
LINE_LIMIT = 8 << 10  # bytes; the rest of a longer line is dropped
_CHUNK = 64 << 10
_BACKLOG = 1 << 20  # bytes: of more output during a rotation only the last lines are read
_COPY_CHUNK = 1 << 20
_IN_MODIFY = 2

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def worker_log(
    path: Path,
    *,
    max_bytes: int,
    keep: int,
    on_line: Callable[[str], None],
    resume: LogPosition | None = None,
) -> Generator[WorkerLog]:
    """Open the log of an engine process before it starts; older content is not read.

    With `resume` reading continues where a previous daemon has stopped.
    Rotated files are named `.1` (newest) to `.KEEP`, of which there is at least one; all together
    take (keep + 1) * max_bytes, plus what a flood adds between two checks. Raises HostProblem.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise HostProblem(f"cannot open {path}: {problem.strerror}") from problem
    try:
        with _watching(path) as changed:
            yield WorkerLog(descriptor, path, changed, max_bytes, keep, on_line, resume)
    finally:
        os.close(descriptor)


class LogPosition(NamedTuple):
    """Where the output of an engine process begins in its file, and how far it was read."""

    began: int
    read: int


class WorkerLog:
    """The growing output of a worker; `follow` is the task that reads it."""

    def __init__(
        self,
        descriptor: int,
        path: Path,
        changed: Callable[[], Awaitable[None]],
        max_bytes: int,
        keep: int,
        on_line: Callable[[str], None],
        resume: LogPosition | None,
    ) -> None:
        self._descriptor = descriptor
        self.path = path
        self._changed = changed
        self._max_bytes = max_bytes
        self._keep = keep
        self._on_line = on_line
        self.on_read: Callable[[int], None] = lambda _: (
            None
        )  # called with the position that was read
        size = os.fstat(descriptor).st_size
        self._began, self._offset = resume or LogPosition(size, size)
        # A smaller file has been rotated since: all of it belongs to this process.
        start = self._began if self._offset >= self._began else 0
        self._offset = self._offset if self._offset <= size else 0
        start = max(start, self._offset - TAIL)
        self._tail = bytearray(os.pread(descriptor, max(0, self._offset - start), start))
        self._partial = b""
        self._unread = b""  # of a file that was rotated meanwhile

    @property
    def mark(self) -> LogPosition:
        """The position for a resume: the start of the first line not yet passed on."""
        return LogPosition(self._began, self._offset - len(self._partial))

    def tail(self) -> str:
        """Return the last 64 KiB of this process's output."""
        return self._tail.decode("utf-8", "replace")

    async def follow(self) -> None:
        """Read and rotate, until cancelled."""
        while True:
            read = self._read()
            size = os.fstat(self._descriptor).st_size
            # At three quarters, so that what comes while we copy still fits.
            if size > self._max_bytes or (size > self._max_bytes * 3 // 4 and not read):
                copied = await trio.to_thread.run_sync(self._rotate)
                start = max(self._offset, copied - _BACKLOG)
                self._unread += _read_from(_older(self.path, 1), start) if copied else b""
                self._offset = 0
            elif not read:
                await self._changed()
            self.on_read(self.mark.read)
            await trio.lowlevel.checkpoint()

    def catch_up(self) -> None:
        """Read to the end at once; of a longer rest only the last 64 KiB. For the end."""
        while self._unread:
            self._read()
        self._offset = max(self._offset, os.fstat(self._descriptor).st_size - _CHUNK)
        self._read()

    def _read(self) -> int:
        data, self._unread = self._unread[:_CHUNK], self._unread[_CHUNK:]
        if not data:
            data = os.pread(self._descriptor, _CHUNK, self._offset)
            self._offset += len(data)
        self._take(data)
        return len(data)

    def _take(self, data: bytes) -> None:
        data = data.replace(b"\0", b"")
        self._tail += data
        del self._tail[:-TAIL]
        # A progress bar ends its lines with a carriage return.
        *lines, partial = (self._partial + data).replace(b"\r", b"\n").split(b"\n")
        self._partial = partial[:LINE_LIMIT]
        for line in lines:
            if line:
                self._on_line(line[:LINE_LIMIT].decode("utf-8", "replace"))

    def _rotate(self) -> int:
        """Copy the file aside and empty it in place. Returns the bytes copied. For a thread."""
        copied, size = 0, os.fstat(self._descriptor).st_size
        if size <= self._max_bytes:
            for number in range(self._keep - 1, 0, -1):
                _rename(_older(self.path, number), _older(self.path, number + 1))
            copied, size = _copy(self._descriptor, _older(self.path, 1), self._max_bytes)
        # What did not fit is dropped, but for its end: a flood may close with the reason for it.
        start = max(copied, size - _CHUNK)
        last = os.pread(self._descriptor, _CHUNK, start) if size > copied else b""
        # Here a write can be lost; nothing short of stopping the worker closes that window.
        os.ftruncate(self._descriptor, 0)
        if start > copied:
            note = (
                f"vllamad: {start - copied} bytes dropped, written faster than logs are rotated\n"
            )
            last = note.encode() + last
        os.write(self._descriptor, last)
        return copied


async def follow(path: Path, lines: int) -> AsyncGenerator[bytes]:
    """Yield the last `lines` lines, then all that is added, across rotations, without end.

    To leave it early, hold it in `contextlib.aclosing`. Raises HostProblem.
    """
    with _watching(path) as changed, path.open("rb", buffering=0) as file:
        start, offset = await trio.to_thread.run_sync(_last_lines, path, lines)
        yield start
        while True:
            size = os.fstat(file.fileno()).st_size
            if size < offset:  # rotated: the rest is in the copy
                yield await trio.to_thread.run_sync(_read_from, _older(path, 1), offset)
                offset = 0
            elif data := os.pread(file.fileno(), _CHUNK, offset):
                offset += len(data)
                yield data
            else:
                await changed()


def last_lines(path: Path, lines: int) -> bytes:
    """Return the last lines of a log, the newest rotated file included. Raises HostProblem."""
    return _last_lines(path, lines)[0]


def _last_lines(path: Path, lines: int) -> tuple[bytes, int]:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise HostProblem(f"cannot read {path}: {problem.strerror}") from problem
    offset = len(data)
    if data.count(b"\n") < lines:
        data = _read_from(_older(path, 1), 0) + data
    body = data.rstrip(b"\n")
    kept = b"\n".join(body.rsplit(b"\n", lines)[-lines:])
    return kept + data[len(body) :], offset


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except FileNotFoundError:
        pass  # not rotated that often yet


def _copy(source: int, target: Path, limit: int) -> tuple[int, int]:
    """Copy a file that grows, until it outgrows `limit`. Returns (bytes copied, size just then)."""
    copied = 0
    with target.open("wb") as file:
        while copied < (size := os.fstat(source).st_size) <= limit:
            try:
                copied += os.sendfile(file.fileno(), source, copied, _COPY_CHUNK)
            except OSError:
                break  # the disk is full: what follows makes room
    return copied, size


@contextmanager
def _watching(path: Path) -> Generator[Callable[[], Awaitable[None]]]:
    """Give a function that waits until the file has changed since it was last awaited."""
    inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if inotify < 0:
        raise HostProblem(
            f"cannot follow {path}: {os.strerror(ctypes.get_errno())}",
            hint="raise fs.inotify.max_user_instances",
        )

    async def changed() -> None:
        await trio.lowlevel.wait_readable(inotify)
        os.read(inotify, 4096)

    try:
        if _libc.inotify_add_watch(inotify, os.fsencode(path), _IN_MODIFY) < 0:
            raise HostProblem(f"cannot follow {path}: {os.strerror(ctypes.get_errno())}")
        yield changed
    finally:
        os.close(inotify)
