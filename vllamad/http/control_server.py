"""HTTP/1.1 for the control socket: requests in, answers out, and no client can end it.

Knows no routes and no access rules: the handler has them. h11 parses. Hypercorn was weighed: it
gives an application no peer credentials of a Unix socket, and a client that never reads holds up
its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import h11
import trio

from vllamad.errors import BadInput, NotAllowed, Unavailable, VllamadError
from vllamad.host.control_socket import Peer, peer_of
from vllamad.protocol.problem import encode_error

MAX_CONNECTIONS = 64
MAX_HEAD = 16 * 1024
MAX_BODY = 1 << 20  # an order to create a model holds licences and a template
READ_LIMIT = 30.0  # seconds from one answer to the end of the next request
WRITE_LIMIT = 5.0  # seconds a peer may leave one piece of an answer unread
_MAX_QUERY_FIELDS = 32
_CHUNK = 4 * 1024  # small, since h11 measures a head between two reads

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRequest:
    """One whole request. `path` is split at `/` first and percent-decoded then."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    body: bytes
    peer: Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResponse:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"


Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResponse:
    """An answer in pieces. `produce` is cancelled as soon as the peer leaves or stops reading."""

    produce: Callable[[Send], Awaitable[None]]
    status: int = 200
    content_type: str = "application/x-ndjson"


Handler = Callable[[ControlRequest], Awaitable[ControlResponse | StreamResponse]]


def refusal(error: VllamadError) -> ControlResponse:
    """An error as a `ProblemBody` with the HTTP status of the error."""
    return ControlResponse(status=error.status, body=encode_error(error))


async def serve_http(listener: trio.SocketListener, handler: Handler) -> None:
    """Serve until cancelled, then close the listener and every connection.

    A VllamadError of the handler becomes its refusal; any other exception ends one connection.
    """
    room = _Room()

    async def attend(stream: trio.SocketStream) -> None:
        async with stream:
            await _Connection(stream, handler, room).attend()

    await trio.serve_listeners(attend, [listener])


@dataclass(slots=True)
class _Room:
    """The open connections. At the limit, the one that has been silent longest is closed."""

    connected: int = 0
    silent: dict[_Connection, None] = field(default_factory=dict["_Connection", None])

    def make_way(self) -> bool:
        if self.connected < MAX_CONNECTIONS:
            return True
        for longest_silent in self.silent:
            del self.silent[longest_silent]
            longest_silent.leave("made way for a newer connection")
            return True
        return False


class _Connection:
    """One client, from its first byte to the last; nothing it does reaches beyond this object."""

    def __init__(self, stream: trio.SocketStream, handler: Handler, room: _Room) -> None:
        self._stream = stream
        self._handler = handler
        self._room = room
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._scope = trio.CancelScope()
        self._pid = 0
        self._head_only = False

    def leave(self, reason: str) -> None:
        """End this connection at its next checkpoint."""
        logger.debug("control connection dropped", extra={"peer": self._pid, "reason": reason})
        self._scope.cancel()

    async def attend(self) -> None:
        welcome = self._room.make_way()
        self._room.connected += 1
        try:
            with self._scope:
                if welcome:
                    await self._converse()
                else:
                    await self._answer(refusal(Unavailable("too many control connections")))
        except Exception:
            logger.exception("control connection failed", extra={"peer": self._pid})
        finally:
            self._room.connected -= 1

    async def _converse(self) -> None:
        # In a thread: where the kernel cannot list groups, the user database may be a slow network.
        peer = await trio.to_thread.run_sync(peer_of, self._stream)
        self._pid = peer.pid
        while True:
            try:
                request = await self._read(peer)
            except VllamadError as error:
                await self._answer(refusal(error))
                return
            if request is None:
                return
            await self._answer(await self._handled(request))
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _handled(self, request: ControlRequest) -> ControlResponse | StreamResponse:
        try:
            return await self._handler(request)
        except VllamadError as error:
            return refusal(error)
        except Exception:
            logger.exception("control request failed", extra={"path": "/".join(request.path)})
            return refusal(VllamadError("internal error", hint="see the log of vllamad"))

    async def _read(self, peer: Peer) -> ControlRequest | None:
        """The next whole request; None when the peer has closed, or was silent for too long."""
        self._room.silent[self] = None
        try:
            with trio.move_on_after(READ_LIMIT):
                return await self._read_events(peer)
        except h11.RemoteProtocolError as error:
            raise BadInput(
                f"cannot read the request: {error}", status=error.error_status_hint
            ) from error
        except trio.BrokenResourceError:
            pass
        finally:
            self._room.silent.pop(self, None)
        return None

    async def _read_events(self, peer: Peer) -> ControlRequest | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            match self._http.next_event():
                case h11.Request() as head:
                    self._head_only = head.method == b"HEAD"
                    _refuse_browsers(head)
                case h11.Data(data=data):
                    body += data
                    if len(body) > MAX_BODY:
                        raise BadInput(f"cannot take a body over {MAX_BODY} bytes", status=413)
                case h11.EndOfMessage() if head is not None:
                    return _request(head, bytes(body), peer)
                case h11.NEED_DATA:
                    self._http.receive_data(await self._stream.receive_some(_CHUNK))
                case _:
                    return None

    async def _answer(self, response: ControlResponse | StreamResponse) -> None:
        headers = [("content-type", response.content_type)]
        if self._http.their_state is not h11.DONE:
            headers.append(("connection", "close"))
        if isinstance(response, ControlResponse):
            headers.append(("content-length", str(len(response.body))))
        await self._send(h11.Response(status_code=response.status, headers=headers))
        if isinstance(response, StreamResponse):
            await self._stream_pieces(response.produce)
        elif response.body and not self._head_only:
            await self._send(h11.Data(data=response.body))
        await self._send(h11.EndOfMessage())

    async def _stream_pieces(self, produce: Callable[[Send], Awaitable[None]]) -> None:
        async def send(piece: bytes) -> None:
            if piece:
                await self._send(h11.Data(data=piece))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_with_peer)
            await produce(send)
            nursery.cancel_scope.cancel()

    async def _leave_with_peer(self) -> None:
        """A peer that hangs up, or talks while it is answered, is not waiting for the rest."""
        try:
            await self._stream.receive_some(1)
        except trio.BrokenResourceError:
            pass
        self.leave("the peer left")

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if not data:
            return
        try:
            with trio.fail_after(WRITE_LIMIT):
                await self._stream.send_all(data)
        except (trio.TooSlowError, trio.BrokenResourceError):
            self.leave("the peer does not read")
            await trio.lowlevel.checkpoint()


def _refuse_browsers(head: h11.Request) -> None:
    """Refuse requests of browsers, so that a web page can never give an order."""
    for name, _ in head.headers:
        if name in (b"origin", b"referer"):
            raise NotAllowed("cannot serve a web page: the request carries Origin or Referer")


def _request(head: h11.Request, body: bytes, peer: Peer) -> ControlRequest:
    path, _, query = head.target.decode("ascii").partition("?")
    if not path.startswith("/"):
        raise BadInput(f"cannot serve {path!r}: a path starts with /")
    try:
        return ControlRequest(
            method=head.method.decode("ascii"),
            path=tuple(unquote(segment, errors="strict") for segment in path[1:].split("/")),
            query=dict(parse_qsl(query, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)),
            body=body,
            peer=peer,
        )
    except ValueError as error:
        raise BadInput(f"cannot read {path!r}: {error}") from error
