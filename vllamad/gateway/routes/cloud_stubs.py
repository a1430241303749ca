"""Routes of Ollama's cloud: there is none here, and each says so as a client expects."""

from __future__ import annotations

from typing import Final

from quart import Response

from vllamad.errors import BadInput, NotAllowed
from vllamad.gateway.context import Context
from vllamad.gateway.routes.bodies import JSON, read
from vllamad.translate.go import json_decoder

_STATUS: Final = b'{"cloud":{"disabled":true,"source":"config"}}'


async def status(context: Context) -> Response:
    """`GET /api/status`: clients then leave out what needs the cloud."""
    return Response(_STATUS, content_type=JSON)


async def me(context: Context) -> Response:
    """`POST /api/me`."""
    raise BadInput("account unavailable", status=503)


async def signout(context: Context) -> Response:
    """`POST /api/signout`, and `DELETE /api/user/keys/KEY`."""
    raise BadInput("you are not currently signed in", status=401)


async def web_search(context: Context) -> Response:
    """`POST /api/experimental/web_search`."""
    await read(json_decoder.decode)
    raise NotAllowed("ollama cloud is disabled: web search is unavailable")


async def web_fetch(context: Context) -> Response:
    """`POST /api/experimental/web_fetch`."""
    await read(json_decoder.decode)
    raise NotAllowed("ollama cloud is disabled: web fetch is unavailable")


async def recommendations(context: Context) -> Response:
    """`GET /api/experimental/model-recommendations`."""
    return Response(b'{"recommendations":[]}', content_type=JSON)
