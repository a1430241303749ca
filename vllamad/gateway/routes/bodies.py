"""Bodies of requests read and decoded, and the content types of responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

import trio
from quart import current_app, request

from vllamad.errors import VllamadError
from vllamad.gateway.server.quart_glue import GatewayApp
from vllamad.translate.content.compression import IDENTITY, unpacked

JSON: Final = "application/json; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"

_LARGE: Final = 1 << 17  # bytes of a body that would hold up every stream while it is decoded

T = TypeVar("T")


async def read(decode: Callable[[bytes], T]) -> T:
    """The request's body, unpacked and decoded; a large one in a thread.

    Raises BadInput, and what `decode` raises.
    """
    body = await request.get_data(cache=False, as_text=False)
    assert isinstance(body, bytes)
    encoding = request.headers.get("Content-Encoding", IDENTITY).lower()
    try:
        if len(body) <= _LARGE and encoding == IDENTITY:
            return decode(body)
        limit, turn = request.max_content_length or 0, cast("GatewayApp", current_app).reading
        return await trio.to_thread.run_sync(_unpack, decode, body, encoding, limit, limiter=turn)
    except VllamadError as error:
        # The traceback would keep the body, however large, until a garbage collection.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        raise
    finally:
        del body


def _unpack(decode: Callable[[bytes], T], body: bytes, encoding: str, limit: int) -> T:
    return decode(unpacked(body, encoding, limit))
