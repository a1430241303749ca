"""A little Hugging Face hub on loopback: model info, resolve with etags and redirects, ranges.

It serves what a test puts into it, and misbehaves where a test says so.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """One repository, `org/tiny`, and the faults to show; changed while it runs."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    port: int = 0
    commit: str = COMMIT
    refuse: tuple[int, str] | None = None  # status and error code of the model info
    serve: dict[str, bytes] = field(default_factory=dict[str, bytes])  # in place of the true bytes
    digests: dict[str, str] = field(default_factory=dict[str, str])  # listed in place of the true
    sizes: dict[str, int] = field(default_factory=dict[str, int])  # listed in place of the true
    location: str = ""  # where large files are said to be, in place of our own
    etags: dict[str, str] = field(default_factory=dict[str, str])  # sent in place of the true
    cut: dict[str, list[int]] = field(default_factory=dict[str, list[int]])  # bytes until the cut
    whole: bool = False  # ranges are not honoured
    busy: list[int] = field(default_factory=list[int])  # Retry-After of the next answers, all 429
    ranges: list[str] = field(default_factory=list[str])  # asked of large files
    stall: str = ""  # a file that is sent to half, until `go_on`
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, bool]] = field(default_factory=list[tuple[str, str, bool]])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self, name: str) -> None:
        """Send a file to half from now on, and the rest after `release`."""
        self.stalled.clear()
        self.go_on.clear()
        self.stall = name

    def release(self) -> None:
        self.stall = ""
        self.go_on.set()

    def fetched(self) -> list[str]:
        """The files whose bytes were asked for, in order."""
        asked = [path for method, path, _ in self.requests if method == "GET"]
        paths = [path for path in asked if not path.startswith("/api/")]
        names = [path.rsplit("/", 1)[1] for path in paths if path.startswith("/cdn/")]
        return names + [path.rsplit("/", 1)[1] for path in paths if not is_large(path)]

    def info(self) -> bytes:
        siblings = [self._sibling(name, content) for name, content in self.files.items()]
        tags = ["license:apache-2.0"]
        return json.dumps(
            {"id": "org/tiny", "sha": self.commit, "siblings": siblings, "tags": tags}
        ).encode()

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        size = self.sizes.get(name, len(content))
        sibling: dict[str, object] = {"rfilename": name, "size": size}
        if is_large(name):
            sha256 = self.digests.get(name, hashlib.sha256(content).hexdigest())
            sibling["blobId"] = git_digest(b"pointer")
            sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        else:
            sibling["blobId"] = self.digests.get(name, git_digest(content))
        return sibling

    def etag(self, name: str) -> str:
        content = self.files[name]
        true = hashlib.sha256(content).hexdigest() if is_large(name) else git_digest(content)
        return self.etags.get(name, self.digests.get(name, true))


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, "authorization" in self.headers))
        resolved = f"/org/tiny/resolve/{self.hub.commit}/"
        if self.hub.busy and path.startswith("/cdn/"):
            self._answer(429, b"", {"Retry-After": str(self.hub.busy.pop(0))})
        elif path.startswith("/api/models/org/tiny"):
            self._info()
        elif path.startswith(resolved) and path.removeprefix(resolved) in self.hub.files:
            self._resolve(path.removeprefix(resolved))
        elif path.startswith("/cdn/"):
            self._bytes(path.removeprefix("/cdn/"), {})
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _info(self) -> None:
        if self.hub.refuse:
            status, code = self.hub.refuse
            self._answer(status, b"{}", {"X-Error-Code": code})
        else:
            self._answer(200, self.hub.info(), {"Content-Type": "application/json"})

    def _resolve(self, name: str) -> None:
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{self.hub.etag(name)}"'}
        if not is_large(name):
            self._bytes(name, headers)
            return
        # Another host name, as a hub's content network has: no token may follow there.
        place = self.hub.location or f"http://localhost:{self.hub.port}/cdn"
        headers["Location"] = f"{place}/{name}"
        headers["X-Linked-Etag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(len(self.hub.files[name]))
        self._answer(302, b"", headers)

    def _bytes(self, name: str, headers: dict[str, str]) -> None:
        content = self.hub.serve.get(name, self.hub.files[name])
        asked = self.headers.get("Range")
        status = 200
        if asked and is_large(name) and self.command == "GET":
            self.hub.ranges.append(asked)
        if asked and not self.hub.whole:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        cuts = self.hub.cut.get(name, [])
        sent = cuts.pop(0) if cuts and self.command == "GET" else len(content)
        if name == self.hub.stall and self.command == "GET":
            self._answer(status, content, headers, sent=len(content) // 2)
            self.hub.stalled.set()
            self.hub.go_on.wait(120)
            self.wfile.write(content[len(content) // 2 :])
            return
        self._answer(status, content, headers, sent=sent)
        if sent < len(content):
            self.close_connection = True

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str], sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])
            self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is part of the tests."""


@contextmanager
def running(files: dict[str, bytes]) -> Generator[Hub]:
    """Serve `files` as org/tiny for as long as the block lasts."""
    hub = Hub(files=files)
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    with Server(("127.0.0.1", 0), handler) as server:
        hub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            hub.go_on.set()
            server.shutdown()
            thread.join()
