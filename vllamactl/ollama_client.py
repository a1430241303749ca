"""A client of Ollama's HTTP API: finds the address, sends a request, reads the response.

It must not know the meaning of a request, nor how a response is shown.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from vllamactl.control_client import ControlClient
from vllamad.config.listen_address import OLLAMA_PORT, ollama_host, parse_listen, spell_listen
from vllamad.errors import BadInput, ModelNotFound, NotAllowed, NotReachable, VllamadError
from vllamad.protocol import control

CONNECT_LIMIT = 10.0  # seconds
_LONGEST_LINE = 8 << 20  # bytes: the limit of Ollama's own client
_BLOCK = 1 << 20  # bytes of a file sent at once
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    host: str = "127.0.0.1"
    port: int = OLLAMA_PORT
    tls: bool = False

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{spell_listen(self.host, self.port)}"


def find_api(client: ControlClient, environ: Mapping[str, str]) -> Address:
    """Return the address of the API: of the daemon the caller named, else $OLLAMA_HOST, else of
    any daemon, else Ollama's default. Raises NotReachable only if a daemon was named.
    """
    configured = environ.get("OLLAMA_HOST", "").strip()
    if configured and not client.is_named:
        host, port = parse_listen(ollama_host(configured))
        return Address(host=_connectable(host), port=port, tls=configured.startswith("https://"))
    try:
        listen = client.get("/v1/status", control.Status).listen
    except (NotReachable, NotAllowed):
        if client.is_named:
            raise
        listen = []
    return _first_address(listen) if listen else Address()


def _first_address(listen: list[str]) -> Address:
    host, port = parse_listen(listen[0])
    return Address(host=_connectable(host), port=port)


def _connectable(host: str) -> str:
    """Return the loopback address for a daemon that listens on every address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return _LOOPBACK[address.version] if address.is_unspecified else host


class UploadSource(Protocol):
    """A body that can be read in blocks."""

    def read(self, count: int = ..., /) -> bytes: ...


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


_refusals = msgspec.json.Decoder(_Refusal)


class OllamaClient:
    """One server. Raises NotReachable, or an error with the server's own message."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self.address = address
        key = environ.get("OLLAMA_API_KEY", "").strip()
        self._key = {"authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, kind: type[T]) -> T:
        with self._exchange("GET", path) as response:
            return _decoded(response.read(), kind)

    def post(self, path: str, body: object, kind: type[T]) -> T:
        """Send a request and return the whole response."""
        with self._exchange("POST", path, msgspec.json.encode(body)) as response:
            return _decoded(response.read(), kind)

    def follow(self, path: str, body: object, kind: type[T]) -> Generator[T]:
        """Send a request and yield the response line by line; closing the generator disconnects."""
        with self._exchange("POST", path, msgspec.json.encode(body)) as response:
            while line := response.readline(_LONGEST_LINE):
                if error := _decoded(line, _Refusal).error:
                    raise VllamadError(error)
                yield _decoded(line, kind)

    def has_blob(self, digest: str) -> bool:
        try:
            with self._exchange("HEAD", f"/api/blobs/{digest}"):
                return True
        except ModelNotFound:
            return False

    def upload(self, digest: str, file: UploadSource, size: int) -> None:
        """Upload a file; `digest` is that of its bytes."""
        with self._exchange("POST", f"/api/blobs/{digest}", file, size) as response:
            response.read()

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | UploadSource = b"", size: int | None = None
    ) -> Generator[http.client.HTTPResponse]:
        connection = self._connect()
        headers = {"content-type": "application/json"}
        if size is not None:
            headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        try:
            sock = connection.sock
            try:
                connection.request(method, path, body or None, headers | self._key)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server stopped reading; its response has the reason
            sock.settimeout(None)  # a model may load for minutes before the first token
            response = connection.getresponse()
            if response.status >= 400:
                raise _refused(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(
                f"cannot complete the request to {self.address}: {str(error).lower()}",
                hint="check that vllamad still runs with `vllamactl status`",
            ) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.address.tls else http.client.HTTPConnection
        connection = kind(
            self.address.host, self.address.port, timeout=CONNECT_LIMIT, blocksize=_BLOCK
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            reason = error.strerror or str(error)
            raise NotReachable(
                f"cannot reach {self.address}: {reason.lower()}",
                hint="start vllamad with `systemctl start vllamad`; OLLAMA_HOST names another",
            ) from error
        assert isinstance(connection.sock, socket.socket)
        return connection


def _refused(response: http.client.HTTPResponse) -> VllamadError:
    try:
        text = _refusals.decode(response.read()).error
    except msgspec.DecodeError:
        text = ""
    text = text or f"the server responded with HTTP status {response.status}"
    match response.status:
        case 404:
            return ModelNotFound(text)
        case 401:
            return NotAllowed(text, hint="put the server's API key into OLLAMA_API_KEY")
        case 400:
            return BadInput(text)
        case _:
            return VllamadError(text)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise VllamadError(f"cannot read the server's response: {error}") from error
