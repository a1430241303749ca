"""A hub for measuring: sparse shards sent by sendfile, a long list of files, a line with a limit.

    python -m tests.bench.shards FOLDER RATE

Serves the repository that `make` made in FOLDER as org/big, all its connections together at most
RATE bytes a second (0: as fast as it goes). Says its port.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec

from tests.fakes.hub import COMMIT, Server, git_digest
from tests.support.checkpoints import SMOLLM2

REPOSITORY = "org/big"
_LIST = "list.json"  # in FOLDER, beside the files
_PIECE = 1 << 20


class Listed(msgspec.Struct, frozen=True):
    """One file as the hub lists it; `digest` is a SHA-256 where it is large, else git's own."""

    name: str
    size: int
    digest: str
    large: bool = False
    there: bool = True  # False: only its name is in the list, and nobody is to ask for it


def make(folder: Path, shards: int, total: int, *, unwanted: int, small: int = 0) -> None:
    """Make a checkpoint of `shards` files, `total` bytes in all, that take no room on the disk.

    Beside them the list has `unwanted` names that no engine needs, and `small` files it could.
    """
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    listed = [_shard(folder / name, total // shards) for name in names]
    index = {"weight_map": {f"w.{name}": name for name in names}}
    texts = {"config.json": SMOLLM2, "model.safetensors.index.json": index}
    texts |= {f"part{number}.json": {"number": number} for number in range(small)}
    for name, value in texts.items():
        content = json.dumps(value).encode()
        (folder / name).write_bytes(content)
        listed.append(Listed(name, len(content), git_digest(content)))
    for number in range(unwanted):
        digest = hashlib.sha1(b"%d" % number).hexdigest()
        listed.append(Listed(f"checkpoints/{number}/optimizer.pt", 1 << 30, digest, there=False))
    (folder / _LIST).write_bytes(msgspec.json.encode(listed))


def _shard(path: Path, size: int) -> Listed:
    """A file of zeros behind a header of its own."""
    data = (size - 4096) // 2 * 2
    tensor = {"dtype": "BF16", "shape": [data // 2], "data_offsets": [0, data]}
    header = json.dumps({f"w.{path.name}": tensor}).encode()
    with path.open("w+b") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + data)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Listed(path.name, path.stat().st_size, digest, large=True)


class Line:
    """What all connections share: each piece waits for its turn."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0
        self._lock = threading.Lock()

    def wait_for(self, count: int) -> None:
        if not self._rate:
            return
        with self._lock:
            begin = max(self._free, time.monotonic())
            self._free = begin + count / self._rate
        threading.Event().wait(max(0.0, begin - time.monotonic()))


@dataclass
class Repository:
    """The files of one folder, and the answers about them."""

    folder: Path
    line: Line

    @cached_property
    def files(self) -> dict[str, Listed]:
        listed = msgspec.json.decode((self.folder / _LIST).read_bytes(), type=list[Listed])
        return {file.name: file for file in listed}

    @cached_property
    def info(self) -> bytes:
        siblings = [
            {"rfilename": file.name, "size": file.size, "blobId": file.digest}
            | ({"lfs": _pointer(file) | {"sha256": file.digest}} if file.large else {})
            for file in self.files.values()
        ]
        return json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()

    @cached_property
    def tree(self) -> bytes:
        entries = [
            {"type": "file", "path": file.name, "size": file.size, "oid": file.digest}
            | ({"lfs": _pointer(file) | {"oid": file.digest}} if file.large else {})
            for file in self.files.values()
        ]
        return json.dumps(entries).encode()


def _pointer(file: Listed) -> dict[str, object]:
    return {"size": file.size, "pointerSize": 134}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # the lines of a head in one packet
    disable_nagle_algorithm = True
    repository: Repository

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")
        file = self.repository.files.get(name)
        if file and file.there:
            self._file(file)
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self._json(self.repository.tree)
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            self._json(self.repository.info)
        else:
            self.send_error(404)

    def _json(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, file: Listed) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{file.size - 1}/{file.size}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{file.digest}"')
        self.send_header("Content-Length", str(file.size - start))
        self.end_headers()
        self.wfile.flush()
        if self.command == "GET":
            with (self.repository.folder / file.name).open("rb") as source:
                self._send(source.fileno(), start, file.size)

    def _send(self, source: int, start: int, end: int) -> None:
        while start < end:
            count = min(_PIECE, end - start)
            self.repository.line.wait_for(count)
            start += os.sendfile(self.connection.fileno(), source, start, count)


def main(folder: Path, rate: float) -> None:
    repository = Repository(folder, Line(rate))
    handler = type("BoundHandler", (Handler,), {"repository": repository})
    with Server(("127.0.0.1", 0), handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
