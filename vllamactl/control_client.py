"""Requests to the daemon over its control socket, with decoded responses.

It must not know how a response is shown.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from vllamad.config.paths import control_candidates, home_of
from vllamad.errors import NotAllowed, NotReachable, VllamadError
from vllamad.protocol.control import Progress
from vllamad.protocol.problem import decode_error

RESPONSE_LIMIT = 10.0  # seconds until a response must begin
_CHUNK = 64 * 1024

T = TypeVar("T", bound=msgspec.Struct)
_progress = msgspec.json.Decoder(Progress)


def sockets(option: str | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the sockets to try, in order; only one if the caller names it."""
    named = option or environ.get("VLLAMAD_CONTROL")
    if named:
        return (Path(named),)
    euid = os.geteuid()
    candidates = control_candidates(environ, euid, home_of(environ, euid))
    return candidates[:1] if environ.get("VLLAMAD_HOME") else candidates


class ControlClient:
    """The control API. Raises NotReachable, NotAllowed, or the error of the daemon's refusal."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._paths = paths

    @property
    def is_named(self) -> bool:
        """True if the caller chose one daemon."""
        return len(self._paths) == 1

    def get(self, path: str, kind: type[T]) -> T:
        """Return one decoded response; unknown keys are ignored."""
        with self._exchange("GET", path) as response:
            return _decoded(response.read(), kind)

    def follow(self, path: str, body: msgspec.Struct | None = None) -> Generator[Progress]:
        """Send an order and yield its steps until the last. Raises the error of a failed step."""
        with self._exchange("POST", path, body) as response:
            for line in response:
                step = _read_step(line)
                if step.error is not None:
                    raise step.error.error()
                yield step
                if step.done:
                    return
        raise NotReachable(
            "cannot follow the order to its end: vllamad closed the connection",
            hint="see its state with `vllamactl status`",
        )

    def text(self, path: str) -> Iterator[bytes]:
        """Yield a text as it arrives, in pieces cut anywhere."""
        with self._exchange("GET", path) as response:
            while piece := response.read1(_CHUNK):
                yield piece

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: msgspec.Struct | None = None
    ) -> Generator[http.client.HTTPResponse]:
        connection = self._connect()
        try:
            data = None if body is None else msgspec.json.encode(body)
            sock = connection.sock  # getresponse drops it if the response closes the connection
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            if response.status >= 400:
                raise _refused(response)
            sock.settimeout(None)  # a long response may pause for long
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(
                f"cannot complete the request to vllamad: {_reason(error)}",
                hint="check that it still runs with `vllamactl status`, and its log",
            ) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        refusals: dict[Path, OSError] = {}
        for path in self._paths:
            connection = _UnixConnection(path)
            try:
                connection.connect()
                return connection
            except OSError as error:
                connection.close()
                refusals[path] = error
        raise _unreachable(refusals)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("vllamad", timeout=RESPONSE_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(RESPONSE_LIMIT)
        self.sock.connect(str(self._path))


def _unreachable(refusals: Mapping[Path, OSError]) -> VllamadError:
    for path, error in refusals.items():
        if isinstance(error, PermissionError):
            return NotAllowed(
                f"cannot connect to {path}: permission denied",
                hint="join the group of the socket (`sudo usermod -aG vllamad-ctl $USER`, then "
                "log in again), or use sudo",
            )
    tried = "\n".join(f"tried {path}: {_reason(error)}" for path, error in refusals.items())
    return NotReachable(
        f"cannot reach vllamad\n{tried}",
        hint="start it with `systemctl start vllamad`, or with `make demo` in a checkout; "
        "--socket PATH names another socket",
    )


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return f"no response within {RESPONSE_LIMIT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).lower() or type(error).__name__


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise _unreadable(error) from error


def _read_step(line: bytes) -> Progress:
    try:
        return _progress.decode(line)
    except msgspec.DecodeError as error:
        raise _unreadable(error) from error


def _unreadable(error: msgspec.DecodeError) -> VllamadError:
    return VllamadError(
        f"cannot read the response of vllamad: {error}",
        hint="compare the versions with `vllamactl version`",
    )


def _refused(response: http.client.HTTPResponse) -> VllamadError:
    try:
        return decode_error(response.read())
    except msgspec.DecodeError:
        return VllamadError(f"vllamad answered with HTTP status {response.status}")
